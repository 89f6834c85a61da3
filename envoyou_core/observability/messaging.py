"""The names of the semantic conventions for messaging. They are in development, so they are kept in one place.

OpenTelemetry, semantic conventions 1.44, "Messaging". No convention has an attribute for the number of an attempt.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ATTEMPT",
    "BATCH_COUNT",
    "BODY_SIZE",
    "DESTINATION",
    "ERROR_TYPE",
    "EVENT_TYPE",
    "HANDLER",
    "LATENCY",
    "MESSAGE_ID",
    "OPERATION_NAME",
    "OPERATION_TYPE",
    "OUTCOME",
    "PROCESS",
    "RECEIVE",
    "RETRY_COUNT",
    "SEND",
    "SYSTEM",
    "SYSTEM_NAME",
    "TENANT",
    "WEBHOOK_ID",
]

SYSTEM: Final = "messaging.system"
SYSTEM_NAME: Final = "envoyou"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"
BODY_SIZE: Final = "messaging.message.body.size"
BATCH_COUNT: Final = "messaging.batch.message_count"
ERROR_TYPE: Final = "error.type"

SEND: Final = "send"
RECEIVE: Final = "receive"
PROCESS: Final = "process"

LATENCY: Final = "messaging.message.receive.latency"
RETRY_COUNT: Final = "messaging.message.retry.count"
"""These two are Sentry's."""

EVENT_TYPE: Final = "envoyou.event_type"
HANDLER: Final = "envoyou.handler"
ATTEMPT: Final = "envoyou.attempt"
OUTCOME: Final = "envoyou.outcome"
WEBHOOK_ID: Final = "envoyou.webhook_id"
TENANT: Final = "envoyou.tenant"
