"""For authors of adapters: what an adapter for a framework needs of the core beyond its other public modules.

An adapter turns a framework's request into a `WebhookRequest` and a `WebhookResponse` into the framework's response.
It wires settings, life cycle and commands the way the framework does. Applications need nothing from this module. The
adapters for Django, Flask, FastAPI and Starlette import the core's public modules and this one only.

Four parts:

- the request path: reading a WSGI or ASGI request, the names of the headers, the bounds of an event;
- settings, secrets and handlers;
- threads and forks: what must be started anew in a forked child, and time limits;
- the parts of an inbox that keeps its own tables: group commit, history, the queue for SQLite's write lock.

Names that need Typer, `asyncio` or `sqlite3` are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envoyou_core.alerts.current import CurrentAlert, current_alerts
from envoyou_core.analytics.rollups import Fold, Measure, Period, RollUp, Tally, fold, scope_of, scoped_name
from envoyou_core.analytics.summary import summarize as summarize_tallies
from envoyou_core.asgi import read_body, request_of
from envoyou_core.doctor.findings import Check, Finding
from envoyou_core.endpoints import mark_endpoint
from envoyou_core.event import MAX_CREATED, MAX_NAME_LENGTH, object_key
from envoyou_core.forks import call_in_forked_children
from envoyou_core.handler import Handler, with_session_of_inbox
from envoyou_core.handler_parameters import TRANSACTION_PARAMETERS
from envoyou_core.handlers import Registration
from envoyou_core.hooks import Hook, HookKind
from envoyou_core.http import (
    EVENT_TYPE_HEADER,
    NONCE_HEADER,
    REFUSALS,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WEBHOOK_ID_HEADER,
)
from envoyou_core.inbox import transitions
from envoyou_core.inbox.connection_budget import CONNECTION_LIMITS, RESERVED, ConnectionBudget, shortage
from envoyou_core.inbox.files import location_of
from envoyou_core.inbox.group_commit import MAX_WAITING, GroupCommit
from envoyou_core.inbox.handler_queue import HandlerTransactionQueue, Slot
from envoyou_core.inbox.history import decode_history, encode_history
from envoyou_core.inbox.insert_statement import columns_of, insert_batches, insert_statement
from envoyou_core.inbox.inspection import probe_entry
from envoyou_core.inbox.lease_tokens import HOLDER_LENGTH, lease_holder, new_lease_token
from envoyou_core.inbox.owed import awaited_handlers, encode_owed
from envoyou_core.inbox.processes import KEPT_FOR, SETS_KEPT_FOR, Beats, ProcessRegistration
from envoyou_core.inbox.rejected import keep as keep_rejection
from envoyou_core.inbox.rejected import rejected_of, surplus
from envoyou_core.inbox.rows import (
    body_bytes,
    claim_of,
    encode_headers,
    event_of,
    headers_of,
    object_key_in,
    progress_of,
    readable_owed,
    readable_progress,
    record_of,
)
from envoyou_core.inbox.server_settings import LOCK_TIMEOUT, POSTGRES_LIMITS
from envoyou_core.inbox.sessions import (
    SESSION_STATE,
    describe_changes,
    named_differ,
    named_state,
    note_statement,
    unseen_event,
)
from envoyou_core.inbox.transitions import Changes
from envoyou_core.observability.disabled import REMEDY, disabled_loggers
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.patterns import check_selection
from envoyou_core.payloads import excerpt_of
from envoyou_core.reception.secret_strength import weakness_of
from envoyou_core.reception.secrets import newest_secret, written_secrets
from envoyou_core.reception.signature import Secret
from envoyou_core.redaction import one_line
from envoyou_core.settings import MISSING_SECRET, SECRET_NAMES, WorkerSettings, above_environment, read_settings
from envoyou_core.unreadable_bodies import DisconnectedError, as_body_error
from envoyou_core.worker.claim_plan import paused_patterns
from envoyou_core.worker.failures import private_texts, traceback_of
from envoyou_core.worker.waker import Waker
from envoyou_core.wsgi import CheckedInput, read_wsgi, receive_wsgi

if TYPE_CHECKING:
    from envoyou_core.cli.command_line import application, run_commands
    from envoyou_core.cli.target import Target
    from envoyou_core.inbox.deadlines import TRANSACTION_LIMIT, time_limit
    from envoyou_core.worker.around import ThreadBoundFunction
    from envoyou_core.worker.celery import has_celery_app
    from envoyou_core.worker.maintenance import MAINTENANCE_INTERVAL
    from envoyou_core.worker.task import DrainTask
    from envoyou_core.worker.threads import DaemonThreads
    from envoyou_core.worker.time_limits import time_limited

__all__ = [
    "CONNECTION_LIMITS",
    "EVENT_TYPE_HEADER",
    "HOLDER_LENGTH",
    "KEPT_FOR",
    "LOCK_TIMEOUT",
    "MAINTENANCE_INTERVAL",
    "MAX_CREATED",
    "MAX_NAME_LENGTH",
    "MAX_WAITING",
    "MISSING_SECRET",
    "NONCE_HEADER",
    "POSTGRES_LIMITS",
    "REFUSALS",
    "REMEDY",
    "RESERVED",
    "SECRET_NAMES",
    "SESSION_STATE",
    "SETS_KEPT_FOR",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "TRANSACTION_LIMIT",
    "TRANSACTION_PARAMETERS",
    "WEBHOOK_ID_HEADER",
    "Beats",
    "Changes",
    "Check",
    "CheckedInput",
    "ConnectionBudget",
    "CurrentAlert",
    "DaemonThreads",
    "DisconnectedError",
    "DrainTask",
    "Finding",
    "Fold",
    "GroupCommit",
    "Handler",
    "HandlerTransactionQueue",
    "Hook",
    "HookKind",
    "Measure",
    "Period",
    "ProcessRegistration",
    "RedactedLogger",
    "Registration",
    "RollUp",
    "Secret",
    "Slot",
    "Tally",
    "Target",
    "ThreadBoundFunction",
    "Waker",
    "WorkerSettings",
    "above_environment",
    "application",
    "as_body_error",
    "awaited_handlers",
    "body_bytes",
    "call_in_forked_children",
    "check_selection",
    "claim_of",
    "columns_of",
    "current_alerts",
    "decode_history",
    "describe_changes",
    "disabled_loggers",
    "encode_headers",
    "encode_history",
    "encode_owed",
    "event_of",
    "excerpt_of",
    "fold",
    "has_celery_app",
    "headers_of",
    "insert_batches",
    "insert_statement",
    "keep_rejection",
    "lease_holder",
    "location_of",
    "mark_endpoint",
    "named_differ",
    "named_state",
    "new_lease_token",
    "newest_secret",
    "note_statement",
    "object_key",
    "object_key_in",
    "one_line",
    "paused_patterns",
    "private_texts",
    "probe_entry",
    "progress_of",
    "read_body",
    "read_settings",
    "read_wsgi",
    "readable_owed",
    "readable_progress",
    "receive_wsgi",
    "record_of",
    "rejected_of",
    "request_of",
    "run_commands",
    "scope_of",
    "scoped_name",
    "shortage",
    "summarize_tallies",
    "surplus",
    "time_limit",
    "time_limited",
    "traceback_of",
    "transitions",
    "unseen_event",
    "weakness_of",
    "with_session_of_inbox",
    "written_secrets",
]

_LOADED_ON_FIRST_USE = {
    "DaemonThreads": "envoyou_core.worker.threads",
    "DrainTask": "envoyou_core.worker.task",
    "MAINTENANCE_INTERVAL": "envoyou_core.worker.maintenance",
    "Target": "envoyou_core.cli.target",
    "TRANSACTION_LIMIT": "envoyou_core.inbox.deadlines",
    "ThreadBoundFunction": "envoyou_core.worker.around",
    "application": "envoyou_core.cli.command_line",
    "has_celery_app": "envoyou_core.worker.celery",
    "run_commands": "envoyou_core.cli.command_line",
    "time_limit": "envoyou_core.inbox.deadlines",
    "time_limited": "envoyou_core.worker.time_limits",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_ON_FIRST_USE[name]), name)
