"""The errors of the management API, in the two forms that the platform's clients must read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from envoyou_core.errors import EnvoyouError
from envoyou_core.simulator.webhook import FieldIssue

__all__ = ["ERROR_FORMS", "ApiError", "ErrorForm", "error_document"]

ErrorForm = Literal["flat", "nested"]
"""`flat`: `error` is the code. `nested`: `error` is an object with the code."""

ERROR_FORMS: Final[tuple[ErrorForm, ...]] = ("flat", "nested")


class ApiError(EnvoyouError):
    """A request that the platform refuses.

    Attributes:
        status: of the response.
        code: stable, in snake case.
        message: for people.
        issues: the invalid values, if the code is `validation_error`.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        issues: Sequence[FieldIssue] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.issues = issues
        self.headers = headers or {}


def error_document(error: ApiError, form: ErrorForm, *, request_id: str, now: float) -> dict[str, Any]:
    """Return the body of the response to a refused request.

    Args:
        error: why it is refused.
        form: the form of the body.
        request_id: the request's id.
        now: epoch seconds.
    """
    issues = [{"field": each.field, "issue": each.issue} for each in error.issues]
    if form == "flat":
        document: dict[str, Any] = {
            "error": error.code,
            "message": error.message,
            "status": error.status,
            "request_id": request_id,
        }
        return {**document, "fields": issues} if issues else document
    inner: dict[str, Any] = {"code": error.code, "message": error.message}
    if issues:
        inner["details"] = issues[0]
    timestamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"error": inner, "timestamp": timestamp, "request_id": request_id}
