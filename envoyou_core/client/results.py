"""What the management client returns, and the settings of a webhook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from envoyou_core.redaction import redact

__all__ = ["OMITTED", "DeletedWebhook", "DeliveryRetryPolicy", "Omitted", "RateLimit", "Webhook"]


class Omitted(Enum):
    """The type of `OMITTED`."""

    OMITTED = "OMITTED"

    def __repr__(self) -> str:
        return "OMITTED"


OMITTED: Final = Omitted.OMITTED
"""The value of an argument that is not sent. `None` is sent, as null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """The rate-limit figures of a response. Each is `None` if the response does not have it.

    Attributes:
        limit: requests that are allowed in the current period.
        remaining: requests that are left in it.
        reset: when the next period begins, in seconds since the epoch.
        retry_after: seconds after which a refused request may be repeated.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: int | None = None
    retry_after: float | None = None

    @property
    def reset_at(self) -> datetime | None:
        """When the next period begins."""
        return None if self.reset is None else datetime.fromtimestamp(self.reset, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRetryPolicy:
    """How EnvoyOU repeats a delivery that failed. See the guide, "Configure Webhook Settings" and "Retry Policy".

    Attributes:
        max_attempts: deliveries of one event, the first one included.
        backoff_multiplier: by which the delay grows after each repetition.
        initial_delay: milliseconds before the first repetition.
        extra: further members, as the platform sent them.
    """

    max_attempts: int = 5
    backoff_multiplier: float = 2
    initial_delay: int = 1000
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Webhook:
    """A registered webhook. See the guide, "Configure Webhook Settings".

    Attributes:
        id: the id, such as `wh_1234567890`.
        url: the URL that receives the deliveries.
        events: the types of event that are delivered.
        active: whether events are delivered; `None` if the response does not say so.
        secret: the signing secret; `None` if the response does not have it.
        retry_policy: how deliveries are repeated; `None` if the response does not have it.
        headers: the custom headers of each delivery.
        extra: further members of the webhook, as the platform sent them.
        request_id: the id of the request that this comes from.
        rate_limit: the figures of the response that this comes from.
    """

    id: str
    url: str
    events: tuple[str, ...]
    active: bool | None = None
    secret: str | None = None
    retry_policy: DeliveryRetryPolicy | None = None
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    request_id: str | None = field(default=None, compare=False)
    rate_limit: RateLimit = field(default=RateLimit(), compare=False)

    def __repr__(self) -> str:
        # The secret, the values of headers and unknown members are left out.
        return f"Webhook(id={self.id!r}, url={redact(self.url)!r}, events={self.events!r}, active={self.active!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedWebhook:
    """The result of a deletion.

    Attributes:
        id: the id of the webhook.
        request_id: the id of the request.
        rate_limit: the figures of the response.
    """

    id: str
    request_id: str | None = field(default=None, compare=False)
    rate_limit: RateLimit = field(default=RateLimit(), compare=False)
