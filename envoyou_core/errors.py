"""The exceptions of this library.

`EnvoyouError` is the base class. `ConfigurationError` is raised at start-up. `WebhookError` is about one request: it
has the HTTP `status` and the stable `code` of the response, and a `reason` for the log and the metrics only.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from envoyou_core.redaction import excerpt, printable, redact

__all__ = [
    "ConfigurationError",
    "EndpointHeaderError",
    "EnvoyouError",
    "HandlerTimeoutError",
    "HeaderMismatchError",
    "InvalidPayloadError",
    "InvalidTimestampError",
    "LeaseLostError",
    "LengthRequiredError",
    "MethodNotAllowedError",
    "MissingHeaderError",
    "MissingSignatureError",
    "NonceReusedError",
    "PayloadTooLargeError",
    "PermanentError",
    "RetryLater",
    "SessionStateError",
    "SignatureMismatchError",
    "TimestampOutOfToleranceError",
    "TransactionTimeoutError",
    "UnavailableError",
    "UnknownEndpointError",
    "UnreadableBodyError",
    "UnsupportedMediaTypeError",
    "WebhookError",
    "WebhookVerificationError",
    "WorkerStuckError",
    "WouldDeadlockError",
]

MAX_DELAY = 100 * 365 * 86_400.0
"""Seconds: a hundred years. A later date may be out of range for `datetime` and for databases."""


class EnvoyouError(Exception):
    """The base class of every error that this library raises."""


class ConfigurationError(EnvoyouError):
    """A setting, a secret or a handler is invalid. Raised at start-up, never for a request."""


class LeaseLostError(EnvoyouError):
    """The lease of an event has passed to another worker. The transaction of this one is rolled back."""

    def __init__(self) -> None:
        super().__init__("the lease has passed to another worker")


class HandlerTimeoutError(EnvoyouError):
    """An async handler was cancelled because it exceeded its time limit, in seconds. Counts as a failed attempt."""

    def __init__(self, time_limit: float) -> None:
        super().__init__(f"cancelled after its time limit of {time_limit:g} s")


class TransactionTimeoutError(EnvoyouError):
    """A handler held SQLite's only write lock for too long; its transaction was rolled back."""


class SessionStateError(EnvoyouError):
    """A handler has changed its connection's session so that the inbox does not find the event's row on it.

    For example, it has set another `search_path` or role. Its transaction was rolled back; a failure of the handler.
    """


class WouldDeadlockError(EnvoyouError):
    """A call of the inbox would wait for SQLite's only write lock, which the transaction of its own handler holds."""

    def __init__(self) -> None:
        super().__init__(
            "this call of the inbox would wait for SQLite's write lock, which its own handler's transaction holds: "
            "call it in the thread of a sync handler, or in a handler that shares no transaction (a sync one with "
            "on(..., atomic=False), an async one without connection and session)"
        )


class WorkerStuckError(EnvoyouError):
    """Every slot of a worker process is held by a handler past its time limit. The process ends, to be restarted."""

    def __init__(self, slots: int) -> None:
        super().__init__(f"all {slots} slots are held by handlers that have exceeded their time limits")


class WebhookError(EnvoyouError):
    """A request was not accepted.

    Attributes:
        status: the HTTP status code of the response.
        code: the stable `error` code in the body of the response.
        reason: a stable word for logs and metrics. For a 401 it is more specific than `code`.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid_request"
    reason: ClassVar[str] = "invalid_request"
    default_message: ClassVar[str] = "The request was not accepted."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default_message)

    @property
    def public_message(self) -> str:
        """The text that the response may contain."""
        return str(self)

    @property
    def detail(self) -> str:
        """The text for the log."""
        return str(self)


class WebhookVerificationError(WebhookError):
    """The request is not authenticated as coming from EnvoyOU (401). See the guide, "Security and Verification".

    The response is the same for every reason, so that it does not help an attacker.
    """

    status = 401
    code = "unauthorized"
    reason = "unauthorized"
    default_message = "The request could not be authenticated."

    @property
    def public_message(self) -> str:
        """The same text for every reason."""
        return WebhookVerificationError.default_message


class MissingSignatureError(WebhookVerificationError):
    """The signature header is missing or empty."""

    reason = "missing_signature"
    default_message = "The signature header is missing."


class InvalidTimestampError(WebhookVerificationError):
    """The timestamp header is missing, or is not 1 to 12 ASCII digits (epoch seconds)."""

    reason = "invalid_timestamp"
    default_message = "The timestamp header is missing or is not 1 to 12 ASCII digits."


class TimestampOutOfToleranceError(WebhookVerificationError):
    """The timestamp is further from now, in the past or the future, than the tolerance (seconds) allows."""

    reason = "timestamp_out_of_tolerance"
    default_message = "The timestamp is outside the tolerance."


class SignatureMismatchError(WebhookVerificationError):
    """The signature matches no accepted form of the body with any of the secrets."""

    reason = "signature_mismatch"
    default_message = "The signature does not match the body."


class UnknownEndpointError(WebhookVerificationError):
    """Secrets are selected by webhook id, and the request has no webhook id or one without a secret."""

    reason = "unknown_endpoint"
    default_message = "No secret is known for the webhook id."


class NonceReusedError(WebhookVerificationError):
    """The nonce is already bound to another event."""

    reason = "nonce_reused"
    default_message = "The nonce is already bound to another event."


class EndpointHeaderError(WebhookVerificationError):
    """A custom header that the application requires is missing, or has another value."""

    reason = "endpoint_header"
    default_message = "A custom header is missing or has another value."


class InvalidPayloadError(WebhookError):
    """The request is authentic but not a valid event (400): not UTF-8, not JSON, or not of the schema of an event.

    See the guide, "Webhook Payload Structure".
    """

    code = "invalid_payload"
    reason = "invalid_payload"
    default_message = "The body is not a valid event."


class UnreadableBodyError(InvalidPayloadError):
    """The server failed to read the body, for example because of malformed chunks (400).

    Attributes:
        detail: the class of the exception that the server's body reader raised, for the log and not for the response.
    """

    reason = "unreadable_body"
    default_message = "The body could not be read."

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        super().__init__(message)
        self._detail = detail

    @property
    def detail(self) -> str:
        """The text for the log."""
        return self._detail or str(self)


class MissingHeaderError(InvalidPayloadError):
    """A required header other than signature and timestamp is missing. See the guide, "Security Headers"."""

    code = "missing_header"
    reason = "missing_header"
    default_message = "A required header is missing."


class HeaderMismatchError(InvalidPayloadError):
    """A header contradicts the signed body."""

    code = "header_mismatch"
    reason = "header_mismatch"
    default_message = "A header contradicts the signed body."


class MethodNotAllowedError(WebhookError):
    """The request is not a POST (405)."""

    status = 405
    code = "method_not_allowed"
    reason = "method_not_allowed"
    default_message = "Webhooks are delivered with POST."


class LengthRequiredError(WebhookError):
    """The body is sent in chunks, and the server does not decode them (411)."""

    status = 411
    code = "length_required"
    reason = "length_required"
    default_message = "This server cannot read a body that is sent in chunks: send a Content-Length."


class PayloadTooLargeError(WebhookError):
    """The body has more bytes than `max_body_size` (413)."""

    status = 413
    code = "payload_too_large"
    reason = "payload_too_large"
    default_message = "The body is too large."


class UnsupportedMediaTypeError(WebhookError):
    """The content type is not JSON (415)."""

    status = 415
    code = "unsupported_media_type"
    reason = "unsupported_media_type"
    default_message = "The content type must be application/json."


class UnavailableError(WebhookError):
    """The event cannot be stored at the moment (503). The sender should retry."""

    status = 503
    code = "unavailable"
    reason = "unavailable"
    default_message = "The event could not be stored; please deliver it again."

    @property
    def public_message(self) -> str:
        """The same text for every reason: the reason may name hosts and accounts, and is for the operator only."""
        return UnavailableError.default_message


class PermanentError(EnvoyouError):
    """Raised by a handler: a retry cannot succeed. The event is dead without further attempts."""


class RetryLater(EnvoyouError):  # noqa: N818 - an instruction to the engine rather than an error
    """Raised by a handler: retry after `seconds`, instead of after the delay of the retry policy.

    It counts as a failed attempt.

    Raises:
        ValueError: `seconds` is negative, not a number, or more than a hundred years.
    """

    def __init__(self, seconds: float, message: str | None = None) -> None:
        if not 0 <= seconds <= MAX_DELAY:
            raise ValueError(f"seconds must be between 0 and {MAX_DELAY:.0f} (a hundred years), got {seconds}")
        super().__init__(message or f"the handler requested a retry after {seconds:g} s")
        self.seconds = seconds


def describe(error: BaseException, *, longest: int = 500, private: Collection[str] = ()) -> str:
    """Describe an error in one line for the log and the inbox: its type and the first line of its text.

    Database libraries put statements and their parameters, and so payloads, into the lines after the first. Characters
    that a database cannot store or that control a terminal are replaced. Secrets and the texts `private` are removed.
    """
    name = type(error).__qualname__
    try:
        lines = excerpt(str(error), private).splitlines()
    except Exception:
        # The `__str__` of a user's exception may fail.
        return name
    first_line = redact(printable((lines or [""])[0]))
    return f"{name}: {first_line}"[:longest] if first_line else name
