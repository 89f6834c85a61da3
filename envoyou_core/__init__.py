"""Receive EnvoyOU webhooks: verify, store, acknowledge, and have the work done. A 200 means the event is on disk."""

from __future__ import annotations

from envoyou_core.errors import (
    ConfigurationError,
    EndpointHeaderError,
    EnvoyouError,
    HandlerTimeoutError,
    HeaderMismatchError,
    InvalidPayloadError,
    InvalidTimestampError,
    LeaseLostError,
    LengthRequiredError,
    MethodNotAllowedError,
    MissingHeaderError,
    MissingSignatureError,
    NonceReusedError,
    PayloadTooLargeError,
    PermanentError,
    RetryLater,
    SessionStateError,
    SignatureMismatchError,
    TimestampOutOfToleranceError,
    TransactionTimeoutError,
    UnavailableError,
    UnknownEndpointError,
    UnreadableBodyError,
    UnsupportedMediaTypeError,
    WebhookError,
    WebhookVerificationError,
    WorkerStuckError,
    WouldDeadlockError,
)
from envoyou_core.event import EVENT_TYPES, Event, EventData, Login, User
from envoyou_core.handler import DeliveryInfo
from envoyou_core.handlers import Handlers
from envoyou_core.http import WebhookRequest, WebhookResponse
from envoyou_core.inbox.records import Status
from envoyou_core.reception.secrets import Tenant
from envoyou_core.reception.signature import sign
from envoyou_core.reception.verification import verify
from envoyou_core.retention import Retention, RetentionReport
from envoyou_core.retry import RetryPolicy
from envoyou_core.webhooks import Webhooks

__all__ = [
    "EVENT_TYPES",
    "ConfigurationError",
    "DeliveryInfo",
    "EndpointHeaderError",
    "EnvoyouError",
    "Event",
    "EventData",
    "HandlerTimeoutError",
    "Handlers",
    "HeaderMismatchError",
    "InvalidPayloadError",
    "InvalidTimestampError",
    "LeaseLostError",
    "LengthRequiredError",
    "Login",
    "MethodNotAllowedError",
    "MissingHeaderError",
    "MissingSignatureError",
    "NonceReusedError",
    "PayloadTooLargeError",
    "PermanentError",
    "Retention",
    "RetentionReport",
    "RetryLater",
    "RetryPolicy",
    "SessionStateError",
    "SignatureMismatchError",
    "Status",
    "Tenant",
    "TimestampOutOfToleranceError",
    "TransactionTimeoutError",
    "UnavailableError",
    "UnknownEndpointError",
    "UnreadableBodyError",
    "UnsupportedMediaTypeError",
    "User",
    "WebhookError",
    "WebhookRequest",
    "WebhookResponse",
    "WebhookVerificationError",
    "Webhooks",
    "WorkerStuckError",
    "WouldDeadlockError",
    "sign",
    "verify",
]
