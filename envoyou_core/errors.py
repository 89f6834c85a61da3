"""Everything the suite raises, in one small tree.

`EnvoyouError` is the root. `ConfigurationError` speaks to the developer, at start-up. `WebhookError`
speaks about one request: it carries the HTTP `status` and the stable `code` that the sender is shown, and
the `reason` that only the log and the metrics see.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from envoyou_core.redaction import excerpt, printable, redact

__all__ = [
    "ConfigurationError",
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
]

MAX_DELAY = 100 * 365 * 86_400.0
"""Seconds: a hundred years. What is due later than a calendar reaches could not be settled, nor shown."""


class EnvoyouError(Exception):
    """The root of every error this library raises."""


class ConfigurationError(EnvoyouError):
    """A setting, a secret or a handler cannot work as given. Raised at start-up, never for a request."""


class LeaseLostError(EnvoyouError):
    """The lease of an event has passed to another worker: whatever this one did in its transaction is undone."""

    def __init__(self) -> None:
        super().__init__("the lease has passed to another worker")


class HandlerTimeoutError(EnvoyouError):
    """An async handler was cancelled, for it took longer than its time limit, in seconds: a failure like any other."""

    def __init__(self, time_limit: float) -> None:
        super().__init__(f"cancelled after its time limit of {time_limit:g} s")


class TransactionTimeoutError(EnvoyouError):
    """A handler held SQLite's only write lock for too long; its transaction was rolled back."""


class WorkerStuckError(EnvoyouError):
    """Each slot of a worker process is held by a handler past its time limit: it ends, to be started anew."""

    def __init__(self, slots: int) -> None:
        super().__init__(f"all {slots} slots are held by handlers that have passed their time limits")


class WebhookError(EnvoyouError):
    """A request that is not accepted.

    Attributes:
        status: the HTTP status code of the answer.
        code: the stable `error` code in the answer's body.
        reason: a stable word for logs and metrics; for a 401 it says more than the sender is told.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid_request"
    reason: ClassVar[str] = "invalid_request"
    default_message: ClassVar[str] = "The request was not accepted."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default_message)

    @property
    def public_message(self) -> str:
        """The text that the sender may read."""
        return str(self)

    @property
    def detail(self) -> str:
        """The text for the log."""
        return str(self)


class WebhookVerificationError(WebhookError):
    """The request is not proven to come from EnvoyOU (401). See the guide, "Security and Verification".

    The answer is the same for every reason, so that it teaches a forger nothing.
    """

    status = 401
    code = "unauthorized"
    reason = "unauthorized"
    default_message = "The request could not be authenticated."

    @property
    def public_message(self) -> str:
        """One text for every reason."""
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
    """The timestamp lies further from now, in the past or the future, than the tolerance (seconds) allows."""

    reason = "timestamp_out_of_tolerance"
    default_message = "The timestamp is outside the tolerance."


class SignatureMismatchError(WebhookVerificationError):
    """No accepted form of the body, under any of the secrets, gives the signature that was sent."""

    reason = "signature_mismatch"
    default_message = "The signature does not match the body."


class UnknownEndpointError(WebhookVerificationError):
    """Secrets go by webhook id, and the request names none or one without a secret."""

    reason = "unknown_endpoint"
    default_message = "No secret is known for the webhook id."


class NonceReusedError(WebhookVerificationError):
    """The nonce already belongs to another event."""

    reason = "nonce_reused"
    default_message = "The nonce is already bound to another event."


class InvalidPayloadError(WebhookError):
    """The request is genuine but cannot be used (400): not UTF-8, not JSON, not the shape of an event.

    See the guide, "Webhook Payload Structure".
    """

    code = "invalid_payload"
    reason = "invalid_payload"
    default_message = "The body is not a valid event."


class UnreadableBodyError(InvalidPayloadError):
    """The server failed to read the body, for example because of malformed chunks (400).

    Attributes:
        detail: the class of what the server's body reader raised, for the log. The sender does not see it.
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
    """The event cannot be stored right now (503): the sender should try again."""

    status = 503
    code = "unavailable"
    reason = "unavailable"
    default_message = "The event could not be stored; please deliver it again."

    @property
    def public_message(self) -> str:
        """One text for every reason: what failed is the operator's business, and may name hosts and accounts."""
        return UnavailableError.default_message


class PermanentError(EnvoyouError):
    """Raised by a handler: trying again is pointless, the event goes to `dead` without further attempts."""


class RetryLater(EnvoyouError):  # noqa: N818 - an instruction to the engine, named as users say it
    """Raised by a handler: try again after `seconds`, instead of after the retry policy's delay.

    It uses up an attempt, as any failure does.

    Raises:
        ValueError: `seconds` is negative, no number, or more than a hundred years.
    """

    def __init__(self, seconds: float, message: str | None = None) -> None:
        if not 0 <= seconds <= MAX_DELAY:
            raise ValueError(f"RetryLater takes a number of seconds from zero to {MAX_DELAY:.0f}, a hundred years")
        super().__init__(message or f"asked to be tried again after {seconds:g} s")
        self.seconds = seconds


def describe(error: BaseException, *, longest: int = 500, private: Collection[str] = ()) -> str:
    """An error in one line that is fit for a log and the inbox: its type and the first line of its text.

    Database libraries put statements and their parameters, and so payloads, into the lines after the first. What no
    database stores as text, or what would move a terminal's cursor, is replaced. What looks like a secret is removed,
    and so are the texts `private`.
    """
    name = type(error).__qualname__
    try:
        lines = excerpt(str(error), private).splitlines()
    except Exception:
        # A user's error that cannot be put into words must not become one of ours.
        return name
    first_line = redact(printable((lines or [""])[0]))
    return f"{name}: {first_line}"[:longest] if first_line else name
