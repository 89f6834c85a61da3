"""Processes that know different handlers, as during a deploy: none is lost, and none runs again after its success."""

import itertools
import re
import threading
from collections import defaultdict
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from msgspec.structs import replace
from sqlalchemy import text

from envoyou_core import ConfigurationError, Handlers, PermanentError, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.inbox import HandlerSet, HandlerStatus, NewEvent, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.processes import LIVE_FOR, ProcessKind
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.observability import HandlerAwaited, HandlerDropped, NoHandlers, Settled
from envoyou_core.spool.spool import Spool
from envoyou_core.testing import sample_event, sign_delivery
from tests.inbox.acts import HandClock
from tests.thoroughness import examples

SECRET = "whsec_test"
DAY = 86_400.0
LEASE = 60.0


class Deployment:
    """Processes on one inbox. Each is a `Webhooks` object that handles `user.created` with the handlers it is given."""

    def __init__(self, open_inbox, clock):
        self.open_inbox, self.clock = open_inbox, clock
        self.calls = []
        self.outcomes = defaultdict(list)
        """What the next calls of a handler raise, by its name; `None` for a success."""

    def process(self, *handlers, pattern="user.created", **values):
        made = Webhooks(
            secret=SECRET,
            inbox=self.open_inbox(),
            clock=self.clock,
            **{
                "handoff": "manual",
                "retry": RetryPolicy(max_attempts=3, initial_delay=2, jitter=False),
                "lease": LEASE,
                **values,
            },
        )
        made.seen = []
        made.subscribe(made.seen.append)
        made.on_dead(lambda event, error: self.calls.append(("on_dead", error)))
        for name in handlers:
            self.add(made, name, pattern)
        if not handlers:
            # A process without any handler would leave every event alone.
            self.add(made, "unrelated", "unrelated.type")
        return made

    def add(self, process, name, pattern="user.created", was=()):
        @process.on(pattern, name=name, was=was)
        def handle(event):
            self.calls.append(name)
            error = self.outcomes[name].pop(0) if self.outcomes[name] else None
            if error is not None:
                raise error

    def deliver(self, process, id="evt_1", type="user.created"):
        delivery = sign_delivery(sample_event(type, id=id), secret=SECRET, timestamp=int(self.clock()))
        response = process.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
        assert response.status == 200


@pytest.fixture(params=["memory", "sqlite"])
def open_inbox(request, clock, sqlite_url):
    if request.param == "memory":
        inbox = MemoryInbox(clock=clock)
        yield lambda: inbox
        return
    made = []

    def make():
        made.append(SqlInbox(sqlite_url, clock=clock))
        return made[-1]

    yield make
    for inbox in made:
        inbox.close()


@pytest.fixture
def deployment(open_inbox, clock):
    return Deployment(open_inbox, clock)


def kinds(notices, kind):
    return [notice for notice in notices if isinstance(notice, kind)]


@pytest.fixture
def failed(deployment, clock):
    """An event of which `welcome` is done and `bill` has failed in a process that has both; its retry is due."""
    both = deployment.process("welcome", "bill")
    deployment.outcomes["bill"] = [ValueError("no route")]
    deployment.deliver(both)
    assert both.drain() == 1
    clock.advance(2)
    return both


@pytest.mark.parametrize("handlers", [["welcome"], ["mail"], []], ids=lambda names: " ".join(names) or "none")
def test_a_handler_that_has_failed_waits_for_a_process_that_has_it(failed, deployment, clock, handlers):
    other = deployment.process(*handlers)
    for _ in range(2):
        assert other.drain() == 0
        record = other.inbox.get("evt_1")
        assert (record.status, record.attempts, record.waits_for) == (Status.FAILED, 1, "bill")
        assert record.last_error == "ValueError: no route"
        # Not due here, and not overdue.
        assert other.inbox.seconds_until_due() == pytest.approx(DAY, abs=1)
        assert (other.inbox.stats().waiting, other.inbox.stats().overdue) == ({"bill": 1}, 0)
    assert failed.drain() == 1
    assert failed.inbox.get("evt_1").status is Status.PROCESSED
    assert deployment.calls == ["welcome", "bill", *(["mail"] if "mail" in handlers else []), "bill"]
    assert failed.inbox.stats().waiting == {}


def test_what_the_accepting_process_has_is_owed(deployment, clock):
    both, one = deployment.process("welcome", "bill"), deployment.process("welcome")
    deployment.deliver(both)
    assert one.drain() == 0
    record = one.inbox.get("evt_1")
    assert (record.status, record.attempts, record.waits_for) == (Status.RECEIVED, 0, "bill")
    assert both.drain() == 1
    assert deployment.calls == ["welcome", "bill"]
    assert both.inbox.get("evt_1").attempts == 1


def test_a_handler_in_which_its_process_died_has_begun(deployment, clock):
    both, one = deployment.process("welcome", "bill"), deployment.process("welcome")
    deployment.deliver(one)
    deployment.outcomes["bill"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        both.drain()
    clock.advance(LEASE)
    assert one.drain() == 0
    assert (one.inbox.get("evt_1").waits_for, one.inbox.get("evt_1").crashes) == ("bill", 1)
    # Longer than the process counts as live.
    clock.advance(DAY - LEASE)
    assert one.drain() == 0
    assert both.drain() == 1
    assert deployment.calls == ["welcome", "bill", "bill"]


def test_an_event_that_has_waited_for_a_day_dies_of_it(failed, deployment, clock):
    other = deployment.process("welcome")
    assert other.drain() == 0
    clock.advance(DAY - 1)
    assert other.drain() == 0
    clock.advance(1)
    assert other.drain() == 1
    record = other.inbox.get("evt_1")
    reason = "no process with the handler bill took the event within 86400 s; earlier error: ValueError: no route"
    assert (record.status, record.last_error) == (Status.DEAD, reason)
    assert deployment.calls == ["welcome", "bill", ("on_dead", reason)]
    # It still owes the handler.
    assert other.inbox.requeue("evt_1") == 1
    assert other.drain() == 0
    assert failed.drain() == 1
    assert deployment.calls[3:] == ["bill"]


def test_the_setting_says_how_long_an_event_waits(failed, deployment, clock):
    other = deployment.process("welcome", handler_wait=10)
    assert other.drain() == 0
    assert other.inbox.seconds_until_due() == pytest.approx(10)
    clock.advance(10)
    assert other.drain() == 1
    assert other.inbox.get("evt_1").status is Status.DEAD


def test_a_handler_that_was_renamed_before_it_began_is_dropped_when_no_live_process_has_it(deployment, clock):
    old = deployment.process("old")
    deployment.deliver(old)
    deployment.deliver(old, "evt_2")
    new = deployment.process("new")
    assert new.drain() == 0
    assert deployment.calls == ["new", "new"]
    clock.advance(LIVE_FOR[ProcessKind.ACCEPTS] + 1)
    assert new.drain() == 2
    assert new.inbox.stats().by_status[Status.PROCESSED] == 2
    assert deployment.calls == ["new", "new"]
    # Each is told once, not for each event.
    assert [notice.handler for notice in kinds(new.seen, HandlerAwaited)] == ["old"]
    assert [notice.handler for notice in kinds(new.seen, HandlerDropped)] == ["old"]
    assert {notice.status for notice in kinds(new.seen, Settled)} == {Status.PROCESSED}


@pytest.mark.parametrize("kind", ["a worker that is gone", "a task queue"])
def test_how_long_a_process_counts_as_live_depends_on_what_it_does(deployment, clock, kind):
    both, one = deployment.process("welcome", "bill"), deployment.process("welcome")
    deployment.deliver(both)
    if kind == "a task queue":
        # It is seen when it runs, even if nothing is due for it.
        both.pause(type="*")
        both.drain()
        both.resume(type="*")
    else:
        both._presence.works()
        both._engine.beat()
    assert one.drain() == 0
    clock.advance(LIVE_FOR[ProcessKind.WORKER] + 1)
    assert one.drain() == (0 if kind == "a task queue" else 1)
    clock.advance(LIVE_FOR[ProcessKind.DRAIN])
    one.drain()
    assert one.inbox.get("evt_1").status is Status.PROCESSED


def test_a_process_without_any_handler_takes_no_event_and_ignores_none(deployment):
    bare = Webhooks(secret=SECRET, inbox=deployment.open_inbox(), clock=deployment.clock, handoff="manual")
    notices = []
    bare.subscribe(notices.append)
    deployment.deliver(bare)
    assert bare.drain() == bare.drain(until_idle=True) == 0
    assert bare.inbox.get("evt_1").status is Status.RECEIVED
    assert kinds(notices, NoHandlers) == [NoHandlers("default")] * 2
    assert deployment.process("welcome").drain() == 1


def test_an_event_is_not_ignored_if_a_live_process_handles_its_type(deployment, clock):
    none, one = deployment.process(), deployment.process("welcome")
    deployment.deliver(none)
    none.inbox.beat(one._presence.process)
    assert none.drain() == 0
    assert none.inbox.get("evt_1").waits_for == "welcome"
    assert one.drain() == 1
    deployment.deliver(none, "evt_2")
    clock.advance(2 * DAY)
    assert none.drain() == 1
    assert none.inbox.get("evt_2").status is Status.IGNORED


def test_a_set_that_is_not_stored_any_more_owes_nothing(deployment, monkeypatch):
    both, one = deployment.process("welcome", "bill"), deployment.process("welcome")
    deployment.deliver(both)
    monkeypatch.setattr(one.inbox, "handler_sets", lambda ids: {})
    assert one.drain() == 1
    assert deployment.calls == ["welcome"]


def test_a_handler_of_that_name_for_other_types_is_another(failed, deployment):
    same_name = deployment.process("bill", pattern="auth.*")
    assert same_name.drain() == same_name.drain() == 0
    assert same_name.inbox.get("evt_1").waits_for == "bill"
    assert failed.drain() == 1


def test_a_process_tells_of_a_handler_that_is_added_late(deployment):
    process, other = deployment.process("welcome"), deployment.process("welcome")
    deployment.deliver(process)
    assert process.drain() == 1
    deployment.add(process, "bill")
    deployment.deliver(process, "evt_2")
    assert other.drain() == 0
    assert process.drain() == 1
    assert deployment.calls == ["welcome", "welcome", "bill"]


def test_a_handler_that_gives_up_while_another_waits_ends_the_event_dead(deployment):
    both, one = deployment.process("welcome", "bill"), deployment.process("welcome")
    deployment.deliver(both)
    deployment.outcomes["welcome"] = [PermanentError("no address")]
    assert one.drain() == 0
    record = one.inbox.get("evt_1")
    assert (record.attempts, record.waits_for, record.last_error) == (1, "bill", "PermanentError: no address")
    assert [attempt.failures[0].handler for attempt in record.history] == ["welcome"]
    assert both.drain() == 1
    record = one.inbox.get("evt_1")
    assert (record.status, record.last_error) == (Status.DEAD, "PermanentError: no address")
    assert deployment.calls[:2] == ["welcome", "bill"]


def test_an_ordinary_failure_is_retried_by_whichever_process_comes_first(deployment, clock):
    both, one = deployment.process("welcome", "bill"), deployment.process("welcome")
    deployment.deliver(both)
    deployment.outcomes["welcome"] = [ValueError("no route")]
    assert one.drain() == 1
    record = one.inbox.get("evt_1")
    assert (record.status, record.attempts, record.waits_for) == (Status.FAILED, 1, None)
    clock.advance(2)
    assert one.drain() == 0
    assert both.drain() == 1
    assert deployment.calls == ["welcome", "welcome", "bill"]


def test_several_handlers_wait_one_after_the_other(deployment, clock):
    all_three = deployment.process("welcome", "bill", "mail")
    for name in ("bill", "mail"):
        deployment.outcomes[name] = [ValueError("no route")]
    deployment.deliver(all_three)
    assert all_three.drain() == 1
    clock.advance(2)
    welcome, bill, mail = (deployment.process(name) for name in ("welcome", "bill", "mail"))
    waiting = [welcome.inbox.get("evt_1").waits_for]
    for process in (welcome, mail, bill, mail):
        process.drain()
        waiting.append(welcome.inbox.get("evt_1").waits_for)
        clock.advance(601)
    assert welcome.inbox.get("evt_1").status is Status.PROCESSED
    assert sorted(deployment.calls[3:]) == ["bill", "mail"]


def test_a_paused_handler_is_not_run_by_the_process_that_is_waited_for(failed, deployment):
    other = deployment.process("welcome")
    other.drain()
    failed.pause(handler="bill")
    assert failed.drain() == 0
    assert failed.inbox.get("evt_1").waits_for == "bill"
    failed.resume(handler="bill")
    assert failed.drain() == 1


@pytest.mark.parametrize("is_late", [False, True], ids=["a retry that is due later", "nothing else"])
def test_a_drain_until_idle_does_not_wait_for_another_process(failed, deployment, clock, is_late):
    other = deployment.process("welcome")
    ended = threading.Event()
    threading.Thread(target=lambda: (other.drain(until_idle=True), ended.set()), daemon=True).start()
    assert ended.wait(20)
    assert other.inbox.get("evt_1").waits_for == "bill"


def test_a_worker_takes_what_waits_for_its_handlers(failed, deployment, until):
    other = deployment.process("welcome")
    other.drain()
    worker = deployment.process("welcome", "bill", handoff="auto")
    worker.start()
    try:
        until(lambda: worker.inbox.get("evt_1").status is Status.PROCESSED)
        until(lambda: any(one.kind is ProcessKind.WORKER for one in worker.inbox.processes()))
    finally:
        worker.stop()
    assert deployment.calls == ["welcome", "bill", "bill"]


def test_a_worker_is_seen_while_its_handlers_take_all_slots(deployment, clock, until, monkeypatch):
    monkeypatch.setattr("envoyou_core.worker.heartbeat.FIRST_BEAT", 0.01)
    monkeypatch.setattr("envoyou_core.worker.heartbeat.BEAT_INTERVAL", 0.01)
    worker = deployment.process(handoff="auto", concurrency=1)
    started, release = threading.Event(), threading.Event()

    @worker.on("user.created")
    def slow(event):
        started.set()
        release.wait(20)

    deployment.deliver(worker)
    worker.start()
    try:
        assert started.wait(20)
        clock.advance(LIVE_FOR[ProcessKind.WORKER] + 1)
        until(lambda: worker.inbox.processes()[0].seen_at == clock.moment())
    finally:
        release.set()
        worker.stop()


def test_the_handlers_of_a_worker_that_was_stopped_bind_for_as_long_as_a_restart_takes(deployment, clock, until):
    old, new = deployment.process("old", handoff="auto"), deployment.process("new")
    deployment.deliver(old)
    old.start()
    until(lambda: new.inbox.get("evt_1").status is Status.PROCESSED)
    # It may have handled the event before its first beat.
    until(lambda: [process.kind for process in new.inbox.processes()] == [ProcessKind.WORKER])
    old.stop()
    assert [process.kind for process in new.inbox.processes()] == [ProcessKind.STOPPED]
    # What it has left in the inbox.
    new.inbox.add(NewEvent(sample_event(id="evt_2"), handlers=old._presence.handlers)).result(20)
    assert new.drain() == 0
    assert new.inbox.get("evt_2").waits_for == "old"
    clock.advance(LIVE_FOR[ProcessKind.STOPPED] + 1)
    assert new.drain() == 1
    assert [notice.handler for notice in kinds(new.seen, HandlerDropped)] == ["old"]


@pytest.mark.parametrize("works_again", [False, True], ids=["accepts", "works"])
def test_a_stopped_worker_that_is_used_again_is_live(deployment, until, works_again):
    process = deployment.process("welcome", handoff="auto")
    deployment.deliver(process)
    process.start()
    until(lambda: process.inbox.get("evt_1").status is Status.PROCESSED)
    process.stop()
    process._settings = replace(process._settings, handoff="auto" if works_again else "manual")
    deployment.deliver(process, "evt_2")
    kind = ProcessKind.WORKER if works_again else ProcessKind.ACCEPTS
    until(lambda: process.inbox.processes()[0].kind is kind)
    process.stop()


def test_the_last_handler_leaves_the_rest_in_its_own_transaction(clock, sqlite_url):
    inboxes = [SqlInbox(sqlite_url, clock=clock) for _ in range(2)]
    made = Deployment(iter(inboxes).__next__, clock)
    both, one = made.process("bill"), made.process()

    @one.on("user.created", name="welcome")
    def welcome(event, connection):
        connection.execute(text("CREATE TABLE work (id TEXT)"))

    made.add(both, "welcome")
    made.deliver(both)
    assert one.drain() == 0
    record = one.inbox.get("evt_1")
    assert (record.waits_for, dict(record.progress)) == ("bill", {"welcome": HandlerStatus.DONE})
    assert both.drain() == 1
    assert made.calls == ["bill"]
    for inbox in inboxes:
        inbox.close()


def test_an_event_that_waited_in_the_spool_owes_the_handlers_of_the_process_that_accepted_it(clock, tmp_path):
    both = HandlerSet.of([("welcome", ["*"]), ("bill", ["*"])])
    spool = Spool(f"sqlite:///{tmp_path / 'spool.db'}", clock=clock)
    spool.add(NewEvent(sample_event(id="evt_1"), handlers=both)).result(20)
    spool.close()
    inbox = SqlInbox(f"sqlite:///{tmp_path / 'inbox.db'}", clock=clock)
    made = Deployment(lambda: inbox, clock)
    one = made.process("welcome", spool=f"sqlite:///{tmp_path / 'spool.db'}")
    inbox.beat(made.process("bill")._presence.process)
    assert one.drain() == 0
    assert (inbox.get("evt_1").waits_for, made.calls) == ("bill", ["welcome"])
    assert inbox.handler_sets([both.id]) == {both.id: both}
    inbox.close()
    one.spool.close()


# At random

NAMES = ("a", "b", "c")
SETS = st.sets(st.sampled_from(NAMES))


class DeployMachine(RuleBasedStateMachine):
    """Processes with random handlers accept, drain, fail, are killed and are replaced, in any order."""

    def open_inbox(self, clock):
        raise NotImplementedError

    @initialize()
    def begin(self):
        self.clock = self.new_clock()
        open_inbox = self.open_inbox(self.clock)
        self.deployment = Deployment(open_inbox, self.clock)
        self.processes = []
        self.ids = (f"evt_{number}" for number in itertools.count())
        self.accepted = {}
        self.begun, self.done = set(), set()
        self.plan = []
        self.deploy(set(NAMES))

    @rule(handlers=SETS)
    def deploy(self, handlers):
        if len(self.processes) == 3:
            self.processes.pop(0)
        process = self.deployment.process(retry=RetryPolicy(max_attempts=1000, initial_delay=2, max_crashes=1000))
        for name in sorted(handlers):
            self.add(process, name)
        process.names = frozenset(handlers)
        self.processes.append(process)

    def register(self, process, name, handle):
        process.on("*", name=name)(handle)

    def add(self, process, name):
        def handle(event):
            assert (event.id, name) not in self.done, "it ran again after its success"
            self.begun.add((event.id, name))
            outcome = self.plan.pop(0) if self.plan else "succeeds"
            if outcome == "fails":
                raise ValueError("no route")
            if outcome == "is killed":
                # Nobody knows which of its handlers had begun, so all count.
                self.begun |= {(event.id, other) for other in process.names}
                raise KeyboardInterrupt
            self.done.add((event.id, name))

        self.register(process, name, handle)

    @rule(number=st.integers(0, 2))
    def accept(self, number):
        id = next(self.ids)
        process = self.processes[number % len(self.processes)]
        self.deployment.deliver(process, id)
        self.accepted[id] = process.names

    @rule(
        number=st.integers(0, 2),
        plan=st.lists(st.sampled_from(["succeeds", "fails", "is killed"]), max_size=4),
        seconds=st.sampled_from([0, 1, 5, 90, 700]),
    )
    def drain(self, number, plan, seconds):
        self.clock.advance(seconds)
        self.plan = plan
        with suppress(KeyboardInterrupt):
            self.processes[number % len(self.processes)].drain()
        self.plan = []

    def teardown(self):
        if not hasattr(self, "processes"):
            return
        # Nobody fails any more. What the last deploy knows has a chance to be taken up by it, for as long as it waits.
        for seconds in (90, 3, 601, 601, 3601, DAY / 2, DAY / 2, DAY, DAY):
            self.clock.advance(seconds)
            for _ in range(3):
                for process in self.processes:
                    process.drain()
                self.clock.advance(2)
        known = frozenset[str]().union(*(process.names for process in self.processes))
        for id in self.accepted:
            record = self.processes[0].inbox.get(id)
            undone = {name for event, name in self.begun - self.done if event == id}
            assert record.status in {Status.PROCESSED, Status.IGNORED, Status.DEAD}
            assert undone.isdisjoint(known), "a handler that the last deploy knows was left undone"
            assert bool(undone) == (record.status is Status.DEAD)


class NamesakesMachine(DeployMachine):
    """The handlers are functions of one name in several modules. A process that has only one of them has the first."""

    def register(self, process, name, handle):
        handle.__module__, handle.__qualname__ = f"project.{name}", "handle"
        handle.__code__ = handle.__code__.replace(co_filename=f"{name}.py")
        process.on("*")(handle)

    @rule(handlers=st.sampled_from([NAMES[:number] for number in range(len(NAMES) + 1)]))
    def deploy(self, handlers):
        super().deploy(handlers)


@pytest.mark.parametrize(
    ("machine", "kind", "number"),
    [
        (DeployMachine, "memory", examples(40, 20)),
        (DeployMachine, "sqlite", examples(6, 3)),
        (NamesakesMachine, "memory", examples(40, 20)),
    ],
)
def test_no_handler_is_lost_or_repeated_whatever_is_deployed(machine, kind, number, tmp_path):
    runs = itertools.count()
    made = []

    class Machine(machine):
        def new_clock(self):
            return HandClock()

        def open_inbox(self, clock):
            if kind == "memory":
                inbox = MemoryInbox(clock=clock)
                return lambda: inbox
            url = f"sqlite:///{tmp_path / f'{next(runs)}.db'}"

            def make():
                made.append(SqlInbox(url, clock=clock))
                return made[-1]

            return make

        def teardown(self):
            try:
                super().teardown()
            finally:
                while made:
                    made.pop().close()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=number,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_waits_for_a_handler_is_announced_by_a_process_that_has_it(deployment, clock):
    old, new = deployment.process("welcome"), deployment.process("welcome", "bill")
    deployment.outcomes["bill"] = [ValueError("first")]
    deployment.deliver(new)
    new.drain()
    clock.advance(2)
    old.drain()
    assert new.inbox.get("evt_1").waits_for == "bill"
    assert new._engine.seconds_until_runnable() == 0.0
    assert old._engine.seconds_until_runnable() > 0
    # Reads of what has become due since then do not count it again.
    assert new._engine.seconds_until_runnable(0.0) > 0


def test_a_renamed_handler_takes_over_what_its_former_name_has_begun_and_done(deployment, clock):
    old, new = deployment.process("welcome", "bill"), deployment.process()
    deployment.add(new, "greet", was="welcome")
    deployment.add(new, "charge", was=["invoice", "bill"])
    deployment.outcomes["bill"] = [ValueError("once")]
    deployment.deliver(old)
    old.drain()
    clock.advance(2)
    new.drain()
    assert deployment.calls == ["welcome", "bill", "charge"]
    record = new.inbox.get("evt_1")
    assert (record.status, record.waits_for) == (Status.PROCESSED, None)
    assert record.progress.keys() == {"welcome", "greet", "bill", "invoice", "charge"}


def test_a_process_of_the_former_release_does_not_run_again_what_a_renamed_handler_has_done(deployment, clock):
    old, new = deployment.process("welcome", "bill"), deployment.process()
    deployment.add(new, "greet", was="welcome")
    deployment.add(new, "bill")
    deployment.outcomes["bill"] = [ValueError("once")]
    deployment.deliver(new)
    new.drain()
    clock.advance(2)
    old.drain()
    assert deployment.calls == ["greet", "bill", "bill"]
    assert old.inbox.get("evt_1").status is Status.PROCESSED


def test_what_waits_for_a_former_name_is_taken_by_the_renamed_handler(deployment, clock):
    old, other, new = deployment.process("bill"), deployment.process("welcome"), deployment.process()
    deployment.outcomes["bill"] = [ValueError("once")]
    deployment.deliver(old)
    old.drain()
    clock.advance(2)
    other.drain()
    assert other.inbox.get("evt_1").waits_for == "bill"
    deployment.add(new, "charge", was="bill")
    assert new.drain() == 1
    assert deployment.calls == ["bill", "welcome", "charge"]


def test_a_pause_of_a_former_name_holds_the_renamed_handler(deployment):
    new = deployment.process()
    deployment.add(new, "charge", was="bill")
    new.pause(handler="bill")
    deployment.deliver(new)
    assert new.drain() == 0


@pytest.mark.parametrize(
    ("was", "error"),
    [
        ("welcome", "'welcome' is a name of the handler 'welcome' already"),
        ("bill", "'bill' is a name of the handler 'charge' already"),
        (["greet"], "'greet' is a name of the handler 'greet' already"),
        (7, "was must be a handler's former name or a list of them, got 7"),
        ([""], "was must be a handler's former name"),
    ],
)
def test_a_former_name_belongs_to_one_handler(was, error):
    handlers = Handlers()
    handlers.on("user.*", name="welcome")(print)
    handlers.on("user.*", name="charge", was="bill")(print)
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        handlers.on("user.*", name="greet", was=was)(print)


def test_an_event_whose_last_owed_handler_is_dropped_is_processed(failed, deployment):
    other = deployment.process("welcome")
    other.drain()
    assert other.inbox.get("evt_1").waits_for == "bill"
    assert other.inbox.requeue(drop_handlers=["bill"]) == 1
    assert other.drain() == 1
    record = other.inbox.get("evt_1")
    assert (record.status, record.progress["bill"]) == (Status.PROCESSED, HandlerStatus.DROPPED)
    # Nor does a process that knows it run it.
    assert deployment.calls == ["welcome", "bill"]


@pytest.mark.parametrize("dropped", ["bill", "charge"])
def test_a_dropped_handler_does_not_run_under_another_of_its_names(deployment, dropped):
    old, new = deployment.process("bill"), deployment.process()
    deployment.add(new, "charge", was="bill")
    deployment.outcomes["bill"] = deployment.outcomes["charge"] = [PermanentError("no address")]
    deployment.deliver(old)
    (old if dropped == "bill" else new).drain()
    assert new.inbox.requeue("evt_1", drop_handlers=[dropped]) == 1
    assert new.drain() == 1
    assert new.inbox.get("evt_1").status is Status.PROCESSED
    assert deployment.calls[:1] == [dropped]
    assert len([call for call in deployment.calls if call in {"bill", "charge"}]) == 1


def test_each_owed_handler_is_awaited_in_turn(deployment, clock):
    killed, other, new = deployment.process("a", "b"), deployment.process(), deployment.process("b")
    deployment.outcomes["a"] = [KeyboardInterrupt()]
    deployment.deliver(killed)
    with suppress(KeyboardInterrupt):
        killed.drain()
    clock.advance(LEASE + 1)
    other.drain()
    # The process that was killed still counts as live.
    assert other.inbox.get("evt_1").waits_for == "a"
    clock.advance(601)
    other.drain()
    assert other.inbox.get("evt_1").waits_for == "b"
    new.drain()
    assert deployment.calls == ["a", "b"]
