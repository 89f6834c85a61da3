"""Forged and stale requests, which an application must refuse. See the guide, "Recommended Validation Steps"."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from envoyou_core.event import Event
from envoyou_core.http import SIGNATURE_HEADER, TIMESTAMP_HEADER
from envoyou_core.reception.signature import Secret
from envoyou_core.simulator.transport import DeliveryError, Transport
from envoyou_core.storm.plan import storm_event
from envoyou_core.testing.deliveries import Delivery, sign_delivery

__all__ = ["KINDS", "Forgery", "ForgeryAnswer", "forge", "send_forgeries"]

STALE: Final = 3_600
"""The age of a stale request, in seconds. The guide accepts five minutes."""

PAUSE: Final = 0.2
"""Seconds before a forgery without an answer is sent again: the application may be restarting."""

CONCURRENCY: Final = 4


@dataclass(frozen=True, slots=True)
class Forgery:
    """A request that must be refused, and how it is forged."""

    event_id: str
    kind: str
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class ForgeryAnswer:
    """The last answer to a forgery; `status` is `None` if there was none."""

    event_id: str
    kind: str
    status: int | None


def _wrong_secret(event: Event, secret: Secret, now: int) -> Delivery:
    return sign_delivery(event, secret=f"whsec_{secrets.token_urlsafe(32)}", timestamp=now)


def _changed_body(event: Event, secret: Secret, now: int) -> Delivery:
    signed = sign_delivery(event, secret=secret, timestamp=now)
    document = json.loads(event.body)
    document["data"]["object"]["forged"] = True
    return Delivery(signed.headers, json.dumps(document).encode())


def _changed_time(event: Event, secret: Secret, now: int) -> Delivery:
    signed = sign_delivery(event, secret=secret, timestamp=now - STALE)
    return Delivery({**signed.headers, TIMESTAMP_HEADER: str(now)}, signed.body)


def _stale(event: Event, secret: Secret, now: int) -> Delivery:
    return sign_delivery(event, secret=secret, timestamp=now - STALE)


def _future(event: Event, secret: Secret, now: int) -> Delivery:
    return sign_delivery(event, secret=secret, timestamp=now + STALE)


def _no_signature(event: Event, secret: Secret, now: int) -> Delivery:
    signed = sign_delivery(event, secret=secret, timestamp=now)
    return Delivery({name: it for name, it in signed.headers.items() if name != SIGNATURE_HEADER}, signed.body)


KINDS: Final[dict[str, Callable[[Event, Secret, int], Delivery]]] = {
    "signed with another secret": _wrong_secret,
    "the body changed after it was signed": _changed_body,
    "the time changed after it was signed": _changed_time,
    "an hour old": _stale,
    "an hour in the future": _future,
    "without a signature": _no_signature,
}
"""The forgeries, by what a report says of them."""


def forge(
    run: str, types: Sequence[str], count: int, *, secret: Secret, webhook_id: str, headers: dict[str, str], now: float
) -> list[Forgery]:
    """Make `count` forgeries, of each kind in turn.

    Args:
        run: the id of the run.
        types: the event types.
        count: the number of forgeries.
        secret: the endpoint's signing secret.
        webhook_id: the endpoint's id.
        headers: the custom headers of the endpoint.
        now: epoch seconds.
    """
    forgeries = []
    for number in range(count):
        kind = [*KINDS][number % len(KINDS)]
        event_type = types[number % len(types)]
        event = storm_event(run, f"forged_{number}", event_type, number, created=int(now), webhook_id=webhook_id)
        delivery = KINDS[kind](event, secret, int(now))
        forgeries.append(Forgery(event.id, kind, Delivery({**headers, **delivery.headers}, delivery.body)))
    return forgeries


async def send_forgeries(
    url: str, forgeries: Sequence[Forgery], transport: Transport, *, pause: float, is_over: Callable[[], bool]
) -> list[ForgeryAnswer]:
    """Send the forgeries, each until there is an answer other than a 5xx.

    Args:
        url: where to.
        forgeries: what is sent.
        transport: sends the requests.
        pause: seconds before each forgery, so that they are spread over the storm.
        is_over: whether to give up.
    """
    rest = iter(forgeries)
    answers: list[ForgeryAnswer] = []

    async def send_some() -> None:
        for forgery in rest:
            await asyncio.sleep(pause)
            status = await _send(url, forgery, transport, is_over)
            answers.append(ForgeryAnswer(forgery.event_id, forgery.kind, status))

    await asyncio.gather(*(send_some() for _ in range(CONCURRENCY)))
    return answers


async def _send(url: str, forgery: Forgery, transport: Transport, is_over: Callable[[], bool]) -> int | None:
    status = None
    while True:
        try:
            status = (await transport.post(url, forgery.delivery)).status
        except DeliveryError:
            status = None
        if is_over() or (status is not None and status < 500):
            return status
        await asyncio.sleep(PAUSE)
