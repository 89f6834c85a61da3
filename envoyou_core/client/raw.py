"""Responses as they came, for callers that need their headers or their body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from envoyou_core.client.operations import Operation
from envoyou_core.client.policy import read
from envoyou_core.client.responses import Reply, rate_limit_of, request_id_of
from envoyou_core.client.results import RateLimit

__all__ = ["RawResponse"]

Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True, slots=True)
class RawResponse(Generic[Result]):
    """A successful response of the API."""

    _operation: Operation[Result] = field(repr=False)
    _reply: Reply

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with names in lower case."""
        return self._reply.headers

    @property
    def body(self) -> bytes:
        """The body, which may contain a signing secret."""
        return self._reply.body

    @property
    def request_id(self) -> str | None:
        """The id of the request."""
        return request_id_of(self._reply)

    @property
    def rate_limit(self) -> RateLimit:
        """The rate-limit figures."""
        return rate_limit_of(self._reply)

    def parse(self) -> Result:
        """Return the result that the call returns without `with_raw_response`.

        Raises:
            InvalidResponseError: the response is not one of the API.
            OutcomeUnknownError: likewise, and a webhook may have been created.
        """
        return read(self._operation, self._reply)
