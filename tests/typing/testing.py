"""What type checkers must make of a user's tests. It is checked by mypy and pyright, and never run."""

from typing import Any, assert_type

from envoyou_core import Event, Status, Webhooks
from envoyou_core.testing import (
    AcceptedEvent,
    AcceptedEvents,
    AsyncDeliver,
    Deliver,
    DeliveryResult,
    EventFields,
    LocationFields,
    UnhandledEventsWarning,
    make_event,
    sample_event,
)

# Events

assert_type(make_event(), Event[dict[str, Any]])
make_event("user.created", email="ada@example.com", metadata={"plan": {"name": "pro"}}, extra={"seats": 5})
make_event("auth.login", event_id="evt_1", created=5, webhook_id=None, location={"city": "Oslo"})
make_event("invoice.paid", extra={"total": 5})
place: LocationFields = {"city": "Oslo"}
fields: EventFields = {"user_id": "user_1", "location": place}
make_event("auth.login", **fields)
make_event("user.created", emial="ada@example.com")  # type: ignore[call-arg]
make_event("user.created", email=5)  # type: ignore[arg-type]
make_event("auth.login", location={"citty": "Oslo"})  # type: ignore[arg-type]


# Fixtures


def test_it(envoyou_deliver: Deliver, envoyou_events: AcceptedEvents, envoyou_webhooks: Webhooks) -> None:
    result = envoyou_deliver("user.created", email="ada@example.com", raise_errors=False, run_handlers=True)
    assert_type(result, DeliveryResult)
    assert_type(result.processed, bool)
    assert_type(result.status, Status | None)
    assert_type(result.error, str | None)
    assert_type(result.status_code, int)
    assert_type(result.event.data.object["id"], Any)
    envoyou_deliver(result.event, secret=b"whsec_1")
    envoyou_deliver(sample_event(), webhook_id="wh_acme")
    envoyou_deliver("user.created", emial="ada@example.com")  # type: ignore[call-arg]
    envoyou_deliver("user.created", email=5)  # type: ignore[arg-type]
    envoyou_deliver(5)  # type: ignore[arg-type]
    _ = result.procesed  # type: ignore[attr-defined]
    assert_type(envoyou_events[0], AcceptedEvent)
    assert_type(envoyou_events[:2], list[AcceptedEvent])
    assert_type(envoyou_events.of("user.*"), list[AcceptedEvent])
    assert_type(envoyou_events.waiting, list[AcceptedEvent])
    assert_type(len(envoyou_events), int)
    assert_type(envoyou_webhooks.drain(raise_errors=True), int)


async def test_it_on_a_loop(envoyou_adeliver: AsyncDeliver) -> None:
    assert_type(await envoyou_adeliver("user.created", email="ada@example.com"), DeliveryResult)
    _ = envoyou_adeliver("user.created").processed  # type: ignore[attr-defined]


assert_type(issubclass(UnhandledEventsWarning, UserWarning), bool)
