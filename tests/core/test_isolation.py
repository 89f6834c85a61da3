"""`Webhooks.isolated` and the kit on it: the application's own object during a test."""

import asyncio

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from envoyou_core import (
    ConfigurationError,
    PermanentError,
    RetryLater,
    RetryPolicy,
    Tenant,
    WebhookRequest,
    WebhookResponse,
    Webhooks,
)
from envoyou_core.inbox import AsyncSqlInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.observability import DatabaseFailed, Settled
from envoyou_core.testing import AsyncDeliver, Deliver, make_event, sample_event, sign_delivery
from envoyou_core.testing.accepted import AcceptedEvents
from envoyou_core.testing.clients import DeliveryClient, DirectClient
from envoyou_core.testing.kit import WebhooksKit
from tests.core.conftest import pause_until

SECRET = "whsec_test"


def made(**settings):
    return Webhooks(**{"secret": SECRET, "inbox": "memory:", "handoff": "manual", **settings})


def accept(webhooks, event):
    delivery = sign_delivery(event, secret=SECRET)
    response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 200


@pytest.fixture
def kit_for():
    def kit_for(webhooks):
        return WebhooksKit(lambda: webhooks, DirectClient(webhooks), "/webhooks/envoyou")

    return kit_for


# Isolation


def test_the_applications_inbox_is_neither_read_nor_written(tmp_path):
    webhooks = made(inbox=f"sqlite:///{tmp_path}/own.db", spool=f"sqlite:///{tmp_path}/spool.db")
    handled = []
    webhooks.on("*")(lambda event: handled.append(event.id))
    before = make_event()
    accept(webhooks, before)
    own = webhooks.inbox
    with webhooks.isolated(lambda notice: None):
        assert webhooks.inbox.stats().total == 0
        assert webhooks.spool is None
        during = make_event()
        accept(webhooks, during)
        assert webhooks.drain() == 1
    assert handled == [during.id]
    assert webhooks.inbox is own
    assert [record.event.id for record in own.list()] == [before.id]
    assert webhooks.drain() == 1
    assert handled == [during.id, before.id]
    own.close()
    webhooks.spool.close()


def test_no_worker_and_no_function_learns_of_an_event():
    called = []
    for handoff in ("auto", called.append):
        webhooks = made(handoff=handoff)
        webhooks.on("*")(lambda event: called.append("handled"))
        with webhooks.isolated(lambda notice: None):
            accept(webhooks, make_event())
            webhooks.ensure_worker()
            webhooks.start()
            assert webhooks.inbox.stats().by_status["received"] == 1
            assert webhooks._in_process is None or not webhooks._in_process.alive
        webhooks.stop()
    assert called == []


def test_a_worker_that_runs_is_stopped_and_may_start_again_afterwards():
    handled = []
    webhooks = made(handoff="auto")
    webhooks.on("*")(lambda event: handled.append(event.id))
    webhooks.start()
    with webhooks.isolated(lambda notice: None):
        accept(webhooks, make_event())
        assert handled == []
    event = make_event()
    accept(webhooks, event)
    pause_until(lambda: handled == [event.id])
    webhooks.stop()


def test_an_inbox_in_the_applications_database_stays(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/app.db")
    for webhooks in (made(inbox=SqlInbox(engine)), made(inbox=f"sqlite:///{tmp_path}/shared.db")):
        own = webhooks.inbox

        @webhooks.on("user.created")
        def store(event, connection):
            connection.execute(sqlalchemy.text("SELECT 1"))

        with webhooks.isolated(lambda notice: None):
            assert webhooks.inbox is own
            accept(webhooks, make_event())
            assert webhooks.drain(raise_errors=True) == 1
        own.close()
    engine.dispose()


async def test_an_inbox_over_an_async_engine_stays_and_its_handlers_run_on_the_loop_of_the_test(kit_for, tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    webhooks = made(inbox=AsyncSqlInbox(engine))
    own = webhooks.inbox

    @webhooks.on("user.created")
    async def store(event, connection):
        await connection.execute(sqlalchemy.text("CREATE TABLE accounts (id TEXT)"))

    with kit_for(webhooks).running() as kit:
        assert webhooks.inbox is own
        assert (await AsyncDeliver(kit)()).processed
    async with engine.connect() as connection:
        assert (await connection.execute(sqlalchemy.text("SELECT count(*) FROM accounts"))).scalar() == 0
    own.close()
    await engine.dispose()


def test_listeners_of_a_test_end_with_it():
    webhooks, heard = made(), []
    with webhooks.isolated(heard.append):
        accept(webhooks, make_event())
    count = len(heard)
    accept(webhooks, make_event())
    assert len(heard) == count > 0


# Deliveries


def test_a_delivery_says_what_became_of_its_event(kit_for):
    webhooks = made()

    @webhooks.on("user.created")
    def welcome(event):
        if event.data.object["email"] is None:
            raise ValueError("no address")

    @webhooks.on("user.deleted")
    def forget(event):
        raise PermanentError("kept by law")

    with kit_for(webhooks).running() as kit:
        deliver = Deliver(kit)
        assert repr(deliver) == "envoyou_deliver"
        processed = deliver("user.created", email="ada@example.com")
        assert (processed.processed, processed.accepted, processed.attempts, processed.error) == (True, True, 1, None)
        assert (processed.event_id, processed.response.status) == (processed.event.id, 200)
        assert repr(processed) == f"<delivery of user.created {processed.event_id}: answered 200, processed>"
        again = deliver(processed.event)
        assert (again.duplicate, again.processed, processed.duplicate) == (True, True, False)
        assert repr(again).endswith("answered 200, duplicate, processed>")
        failed = deliver("user.created", email=None, raise_errors=False)
        assert (failed.failed, failed.error) == (True, "ValueError: no address")
        assert repr(failed).endswith(f"failed in {welcome.__qualname__}: ValueError: no address>")
        dead = deliver("user.deleted", raise_errors=False)
        assert (dead.dead, dead.processed) == (True, False)
        ignored = deliver("auth.login")
        assert ignored.ignored
        assert repr(ignored).endswith("ignored: no handler for auth.login>")
        waiting = deliver("user.created", run_handlers=False)
        assert waiting.waiting
        assert repr(waiting).endswith("waiting, not handled yet>")
        refused = deliver("user.created", secret="whsec_other")
        assert (refused.status_code, refused.accepted, refused.status, refused.attempts) == (401, False, None, 0)
        assert (refused.error, refused.duplicate) == (None, False)
        assert "answered 401 at /webhooks/envoyou, refused: signature_mismatch: The signature" in repr(refused)


def test_what_a_handler_raises_is_raised_where_the_test_delivers(kit_for):
    webhooks = made()

    @webhooks.on("user.created")
    def fail(event):
        raise ValueError("no")

    @webhooks.on("user.deleted")
    def fail_first(event):
        raise ValueError("first")

    @webhooks.on("user.deleted")
    def fail_second(event):
        raise KeyError("second")

    @webhooks.on("user.updated")
    def needs_a_mailer(event, mailer): ...

    kit = kit_for(webhooks)
    with kit.running():
        with pytest.raises(ConfigurationError, match="nothing provides") as caught:
            Deliver(kit)("user.updated")
        assert [frame.name for frame in caught.traceback][1:] == ["__call__"]
        webhooks.provide("mailer", lambda: None)
        with pytest.raises(ValueError, match="no") as caught:
            Deliver(kit)("user.created")
        # No frame of the library lies between the delivery and the handler.
        assert [frame.name for frame in caught.traceback][1:] == ["__call__", "fail"]
        with pytest.raises(ExceptionGroup) as caught:
            Deliver(kit)("user.deleted")
        assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]
        assert [frame.name for frame in caught.traceback][1:] == ["__call__"]
        # The test has ended with an error: what is left of it is no news.
        accept(webhooks, make_event())
    assert kit.unhandled() is None


def test_an_error_of_the_library_keeps_its_frames(kit_for):
    class BrokenClient(DeliveryClient):
        pass

    kit = kit_for(made())
    kit.client = BrokenClient()
    with kit.running(), pytest.raises(NotImplementedError) as caught:
        Deliver(kit)()
    assert [frame.name for frame in caught.traceback][-1] == "post"


async def test_in_an_async_test_the_handlers_run_on_its_event_loop(kit_for):
    webhooks, loops = made(), []

    @webhooks.on("user.created")
    async def note(event):
        loops.append(asyncio.get_running_loop())
        if event.data.object["email"] is None:
            raise ValueError("no address")

    with kit_for(webhooks).running() as kit:
        adeliver = AsyncDeliver(kit)
        assert repr(adeliver) == "envoyou_adeliver"
        assert (await adeliver("user.created")).processed
        assert loops == [asyncio.get_running_loop()]
        with pytest.raises(ValueError, match="no address"):
            await adeliver("user.created", email=None)
        assert (await adeliver(run_handlers=False)).waiting
        with pytest.raises(ConfigurationError, match="await envoyou_adeliver"):
            Deliver(kit)()


async def test_a_client_without_async_methods_posts_in_a_thread(kit_for):
    webhooks = made()
    webhooks.on("*")(lambda event: None)

    class SyncClient(DirectClient):
        apost = DeliveryClient.apost

    kit = kit_for(webhooks)
    kit.client = SyncClient(webhooks)
    with kit.running():
        assert (await AsyncDeliver(kit)()).processed
    kit.client.close()


def test_an_event_is_given_or_made_but_not_both(kit_for):
    with kit_for(made()).running() as kit:
        with pytest.raises(TypeError, match=r"so created, email cannot change it: pass them to make_event"):
            Deliver(kit)(sample_event(), created=5, email="x")
        with pytest.raises(TypeError, match="did you mean 'email'"):
            Deliver(kit)(emial="x")


def test_deliveries_are_as_the_endpoint_expects_them(kit_for, clock):
    webhooks = made(
        secret={"wh_acme": Tenant("acme", "whsec_acme")},
        endpoint_headers={"X-Custom": ["new", "old"]},
        signed_content=("canonical",),
        clock=clock,
    )
    webhooks.on("*")(lambda event: None)
    with kit_for(webhooks).running() as kit:
        clock.advance(-86_400.0)
        result = Deliver(kit)("user.created", webhook_id="wh_acme")
        assert result.processed
        assert result.event.created == int(clock())
        with pytest.raises(
            ConfigurationError, match=r"no secret for the webhook id .*: name an endpoint .*webhook_id="
        ):
            Deliver(kit)("user.created")


def test_webhooks_that_are_made_anew_during_the_test_are_isolated_too():
    first, second = made(handoff="auto"), made(handoff="auto")
    current = [first]
    kit = WebhooksKit(lambda: current[0], DirectClient(second), "/")
    with kit.running():
        current[0] = second
        second.on("*")(lambda event: None)
        assert Deliver(kit)().processed
        assert len(kit.events) == 1


def test_further_webhooks_of_the_application_are_isolated_and_not_listed():
    webhooks, other = made(), made(handoff="auto")
    for each in (webhooks, other):
        each.on("*")(lambda event: None)
    kit = WebhooksKit(lambda: webhooks, DirectClient(webhooks), "/", others=[other])
    with kit.running():
        accept(other, make_event())
        assert other.inbox.stats().by_status["received"] == 1
        assert len(kit.events) == 0
    assert other.inbox.stats().total == 0


def test_a_path_without_a_route_is_named(kit_for):
    class NothingHere(DirectClient):
        def post(self, path, delivery):
            return WebhookResponse(404, b"")

    kit = kit_for(made())
    kit.client = NothingHere(kit.webhooks)
    with kit.running():
        result = Deliver(kit)()
    assert repr(result).endswith(
        "answered 404 at /webhooks/envoyou: the application has no such route, see the fixture envoyou_path>"
    )


# Events


def test_the_events_of_a_test_are_listed_with_what_became_of_them(kit_for):
    webhooks = made(retry=RetryPolicy(max_attempts=2, initial_delay=0, jitter=False))

    @webhooks.on("user.*")
    def work(event, attempt):
        if event.type == "user.deleted":
            raise ValueError("no")
        if event.type == "user.updated" and attempt == 1:
            raise RetryLater(3600)

    with kit_for(webhooks).running() as kit:
        events, deliver = kit.events, Deliver(kit)
        assert repr(events) == "<no event was accepted>"
        created = deliver("user.created")
        deliver(created.event)
        dead = deliver("user.deleted", raise_errors=False)
        deliver("user.updated")
        deliver("user.verified", secret="whsec_other")
        deliver("user.created", run_handlers=False)
        assert [event.type for event in events] == ["user.created", "user.deleted", "user.updated", "user.created"]
        assert (len(events), events[0].event_id, events[0].deliveries) == (4, created.event_id, 2)
        assert events[1:2] == [events.get(dead.event_id)]
        assert [event.attempts for event in events] == [1, 2, 1, 0]
        assert events.of("user.deleted") == [events[1]]
        assert events.processed == [events[0]]
        assert events.unsuccessful == [events[1], events[2]]
        assert events.waiting == [events[3]]
        assert (events[2].failed, events[2].retry_in, events[1].dead, events[0].ignored) == (True, 3600.0, True, False)
        assert events.refusals == ["signature_mismatch: The signature does not match the body."]
        assert (
            repr(events[1])
            == f"<user.deleted {dead.event_id}: dead after 2 attempts in {work.__qualname__}: ValueError: no>"
        )
        lines = repr(events).splitlines()
        assert lines[0] == "<events of this test:"
        assert lines[-2] == "  <refused: signature_mismatch: The signature does not match the body.>"
        # A redelivery gives a dead event new attempts.
        revived = deliver(dead.event, run_handlers=False)
        assert (revived.waiting, revived.duplicate, events[1].deliveries) == (True, False, 2)
        webhooks.drain()
    assert "1 event was accepted" not in str(kit.unhandled())


def test_an_event_that_was_accepted_before_the_test_is_a_duplicate(kit_for, tmp_path):
    webhooks = made(inbox=f"sqlite:///{tmp_path}/app.db")
    webhooks.on("*", name="store")(lambda event, connection: None)
    event = make_event()
    accept(webhooks, event)
    webhooks.drain()
    with kit_for(webhooks).running() as kit:
        result = Deliver(kit)(event)
        assert (result.duplicate, result.status) == (True, None)
        assert repr(result).endswith("duplicate, accepted before this test>")
    webhooks.inbox.close()


def test_notices_of_other_events_change_nothing():
    events = AcceptedEvents()
    events(Settled("evt_1", "user.created", "processed", 1, None, None, 0.0))
    events(DatabaseFailed("evt_1", "user.created", "work", "sqlite", "OperationalError: locked", 1.0))
    assert (len(events), events.get("evt_1")) == (0, None)


def test_an_interrupted_attempt_is_named(kit_for):
    webhooks = made()
    with kit_for(webhooks).running() as kit:
        event = make_event()
        accept(webhooks, event)
        kit.events(DatabaseFailed(event.id, event.type, "work", "sqlite", "OperationalError: locked", 1.0))
        assert kit.events[0].outcome == "waiting: the database failed: OperationalError: locked"


# Forgotten drains


def test_events_that_were_not_handled_are_a_warning_with_the_remedy(kit_for):
    webhooks = made()
    kit = kit_for(webhooks)
    with kit.running():
        for _ in range(4):
            accept(webhooks, make_event())
    assert "4 events were accepted but not handled when the test ended" in str(kit.unhandled())
    assert ", ...): call envoyou_webhooks.drain(raise_errors=True), or post with envoyou_deliver" in str(
        kit.unhandled()
    )


def test_without_any_handler_the_warning_and_the_result_say_so(kit_for):
    kit = kit_for(made())
    with kit.running():
        assert "waiting, not handled yet, no handler is registered; import the module" in repr(Deliver(kit)())
    assert "1 event was accepted" in str(kit.unhandled())
    assert "no handler is registered" in str(kit.unhandled())


def test_handled_events_are_no_reason_for_a_warning(kit_for):
    webhooks = made()
    webhooks.on("*")(lambda event: None)
    kit = kit_for(webhooks)
    with kit.running():
        Deliver(kit)()
    assert kit.unhandled() is None
