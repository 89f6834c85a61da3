"""Forged and stale requests, which an application must refuse. See the guide, "Recommended Validation Steps"."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
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

Forge = Callable[[Event, Secret, int], Delivery]
"""Makes a request from an event, the endpoint's secret and the time."""


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


def _signed(event: Event, secret: Secret, now: int) -> Delivery:
    return sign_delivery(event, secret=secret, timestamp=now)


def _canonical(event: Event, secret: Secret, now: int) -> Delivery:
    return sign_delivery(event, secret=secret, timestamp=now, signed_content="canonical")


def _old(event: Event, secret: Secret, now: int) -> Delivery:
    return _signed(event, secret, now - STALE)


def _future(event: Event, secret: Secret, now: int) -> Delivery:
    return _signed(event, secret, now + STALE)


def _other_secret(sign: Forge) -> Forge:
    return lambda event, _, now: sign(event, f"whsec_{secrets.token_urlsafe(32)}", now)


def _empty_secret(event: Event, secret: Secret, now: int) -> Delivery:
    # What an application computes whose secret is missing: anyone can sign such a request.
    content = f"{now}.".encode() + event.body
    signature = f"v1,{hmac.new(b'', content, hashlib.sha256).hexdigest()}"
    return _with_header(_signed(event, secret, now), SIGNATURE_HEADER, signature)


def _changed_body(sign: Forge) -> Forge:
    def forge(event: Event, secret: Secret, now: int) -> Delivery:
        document = json.loads(event.body)
        document["data"]["object"]["forged"] = True
        return Delivery(sign(event, secret, now).headers, json.dumps(document).encode())

    return forge


def _changed_time(event: Event, secret: Secret, now: int) -> Delivery:
    return _with_header(_old(event, secret, now), TIMESTAMP_HEADER, str(now))


def _two_times(event: Event, secret: Secret, now: int) -> Delivery:
    # The two spellings are two header lines. The application may check one of them, and verify with the other one.
    return _with_header(_old(event, secret, now), TIMESTAMP_HEADER.lower(), str(now))


def _empty_signature(event: Event, secret: Secret, now: int) -> Delivery:
    return _with_header(_signed(event, secret, now), SIGNATURE_HEADER, "")


def _without(header: str) -> Forge:
    def forge(event: Event, secret: Secret, now: int) -> Delivery:
        signed = _signed(event, secret, now)
        return Delivery({name: value for name, value in signed.headers.items() if name != header}, signed.body)

    return forge


def _with_header(delivery: Delivery, name: str, value: str) -> Delivery:
    return Delivery({**delivery.headers, name: value}, delivery.body)


KINDS: Final[dict[str, Forge]] = {
    "signed with another secret": _other_secret(_signed),
    "signed with another secret, in the canonical form": _other_secret(_canonical),
    "signed with an empty secret": _empty_secret,
    "the body changed after it was signed": _changed_body(_signed),
    "the body changed after its canonical form was signed": _changed_body(_canonical),
    "the time changed after it was signed": _changed_time,
    "two timestamps, of which the signed one is an hour old": _two_times,
    "an hour old": _old,
    "an hour in the future": _future,
    "without a signature": _without(SIGNATURE_HEADER),
    "with an empty signature": _empty_signature,
    "without a timestamp": _without(TIMESTAMP_HEADER),
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
