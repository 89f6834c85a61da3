"""`/_simulator`: other processes send events and read the attempts over HTTP. The platform itself has no such paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from envoyou_core.errors import ConfigurationError, InvalidPayloadError
from envoyou_core.simulator.api import ApiRequest, ApiResponse, object_in, page_limit
from envoyou_core.simulator.api_errors import ApiError
from envoyou_core.simulator.outbox import Attempt

__all__ = ["ControlResource", "Controlled"]

FIELDS = ("type", "object", "count", "created")


class Controlled(Protocol):
    """What can be done over HTTP; see `Platform`."""

    def send(
        self, event_type: str, *, object: dict[str, Any] | None = None, count: int = 1, created: int | None = None
    ) -> Sequence[str]:
        """Send events and return their ids."""

    def resend(self, event_id: str) -> None:
        """Deliver an event again."""

    def attempts(self, event_id: str | None = None, *, after: int = 0, limit: int | None = None) -> Sequence[Attempt]:
        """Return attempts."""

    def count_unfinished(self) -> int:
        """Return the number of unfinished deliveries."""


class ControlResource:
    """Sends and resends events, and shows attempts and what is unfinished.

    Args:
        platform: what is controlled.
    """

    def __init__(self, platform: Controlled) -> None:
        self._platform = platform

    def answer(self, request: ApiRequest, segments: list[str]) -> ApiResponse:
        """Answer a request below `/_simulator`; see `Resource`.

        Raises:
            ApiError: the request is refused.
        """
        match segments, request.method:
            case ["events"], "POST":
                return self._send(request)
            case ["events", event_id, "resend"], "POST":
                return self._resend(event_id)
            case ["attempts"], "GET":
                return self._attempts(request)
            case ["state"], "GET":
                return ApiResponse(200, {"unfinished": self._platform.count_unfinished()})
        raise ApiError(404, "not_found", "There is nothing at this path, or not for this method.")

    def _send(self, request: ApiRequest) -> ApiResponse:
        document = object_in(request)
        for name in document:
            if name not in FIELDS:
                raise ApiError(400, "invalid_request", f"Unknown field; expected some of {', '.join(FIELDS)}.")
        object, count = document.get("object"), document.get("count", 1)
        if not (object is None or isinstance(object, dict)):
            raise ApiError(400, "invalid_request", "object must be a JSON object.")
        try:
            ids = self._platform.send(
                document.get("type", "user.created"), object=object, count=count, created=document.get("created")
            )
        except (ConfigurationError, InvalidPayloadError) as error:
            raise ApiError(400, "invalid_request", str(error)) from None
        return ApiResponse(202, {"events": list(ids)})

    def _resend(self, event_id: str) -> ApiResponse:
        try:
            self._platform.resend(event_id)
        except LookupError:
            raise ApiError(404, "not_found", "There is no event with this id.") from None
        return ApiResponse(202, {"events": [event_id]})

    def _attempts(self, request: ApiRequest) -> ApiResponse:
        after = request.parameter("after") or "0"
        if not (after.isascii() and after.isdigit()) or len(after) > 18:
            raise ApiError(400, "invalid_request", "after must be the sequence of an attempt.")
        found = self._platform.attempts(request.parameter("event_id"), after=int(after), limit=page_limit(request))
        return ApiResponse(200, {"items": [asdict(attempt) for attempt in found]})
