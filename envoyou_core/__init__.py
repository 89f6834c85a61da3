"""Receive EnvoyOU webhooks: verify, store, acknowledge, and have the work done. A 200 means the event is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_LOADED_ON_FIRST_USE = {
    "ConfigurationError": "envoyou_core.errors",
    "DeliveryInfo": "envoyou_core.handler",
    "EVENT_TYPES": "envoyou_core.event",
    "EndpointHeaderError": "envoyou_core.errors",
    "EnvoyouError": "envoyou_core.errors",
    "Event": "envoyou_core.event",
    "EventData": "envoyou_core.event",
    "HandlerTimeoutError": "envoyou_core.errors",
    "Handlers": "envoyou_core.handlers",
    "HeaderMismatchError": "envoyou_core.errors",
    "InvalidPayloadError": "envoyou_core.errors",
    "InvalidTimestampError": "envoyou_core.errors",
    "LeaseLostError": "envoyou_core.errors",
    "LengthRequiredError": "envoyou_core.errors",
    "Login": "envoyou_core.event",
    "MethodNotAllowedError": "envoyou_core.errors",
    "MissingHeaderError": "envoyou_core.errors",
    "MissingSignatureError": "envoyou_core.errors",
    "NonceReusedError": "envoyou_core.errors",
    "PayloadTooLargeError": "envoyou_core.errors",
    "PermanentError": "envoyou_core.errors",
    "Retention": "envoyou_core.retention",
    "RetentionReport": "envoyou_core.retention",
    "RetryLater": "envoyou_core.errors",
    "RetryPolicy": "envoyou_core.retry",
    "SessionStateError": "envoyou_core.errors",
    "SignatureMismatchError": "envoyou_core.errors",
    "Status": "envoyou_core.inbox.records",
    "Tenant": "envoyou_core.reception.secrets",
    "TimestampOutOfToleranceError": "envoyou_core.errors",
    "TransactionTimeoutError": "envoyou_core.errors",
    "UnavailableError": "envoyou_core.errors",
    "UnknownEndpointError": "envoyou_core.errors",
    "UnreadableBodyError": "envoyou_core.errors",
    "UnsupportedMediaTypeError": "envoyou_core.errors",
    "User": "envoyou_core.event",
    "WebhookError": "envoyou_core.errors",
    "WebhookRequest": "envoyou_core.http",
    "WebhookResponse": "envoyou_core.http",
    "WebhookVerificationError": "envoyou_core.errors",
    "Webhooks": "envoyou_core.webhooks",
    "WorkerStuckError": "envoyou_core.errors",
    "WouldDeadlockError": "envoyou_core.errors",
    "sign": "envoyou_core.reception.signature",
    "verify": "envoyou_core.reception.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LOADED_ON_FIRST_USE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
