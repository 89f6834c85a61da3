"""Django signals: their arguments, the thread in which they are sent, and failing receivers."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from django.db import connection
from django.test import Client, override_settings

from envoyou_core import PermanentError, RetryLater
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.models import ProcessedEvent
from envoyou_django.signals import event_dead, event_failed, event_processed, event_received
from tests.django.conftest import SECRET
from tests.django.members.models import Member

SIGNALS = {
    "received": event_received,
    "processed": event_processed,
    "failed": event_failed,
    "dead": event_dead,
}
PATIENCE = 20.0


def post(event):
    delivery = sign_delivery(event, secret=SECRET)
    response = Client().post(
        "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
    )
    assert response.status_code == 200


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


@contextmanager
def connected(signal, receiver):
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        assert signal.disconnect(receiver)


@pytest.fixture
def sent():
    """The signals that are sent, in order, with their arguments except sender, name and seconds, which are checked."""
    sent_signals = []

    def receiver_for(name):
        def receiver(sender, signal, **values):
            assert sender is ProcessedEvent
            assert values.pop("name") == "default"
            assert values.pop("seconds", 0.0) >= 0.0
            sent_signals.append((name, values))

        return receiver

    with ExitStack() as stack:
        for name, signal in SIGNALS.items():
            stack.enter_context(connected(signal, receiver_for(name)))
        yield sent_signals


def of(event, **more):
    return {"event_id": event.id, "event_type": event.type, **more}


@pytest.mark.django_db
def test_each_signal_has_its_arguments(sent):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "RETRY_DELAYS": [0]}):

        @webhooks.on("shop.*", name="work")
        def work(event, attempt):
            if event.type == "shop.sold":
                raise PermanentError("sold")
            if attempt == 1:
                raise ValueError("not yet")

        event = sample_event("shop.opened")
        post(event)
        assert sent == [("received", of(event, added="new", tenant=""))]
        sent.clear()
        webhooks.drain(until_idle=True)
        assert sent == [
            ("failed", of(event, attempt=1, error="ValueError: not yet", retry_in=0.0)),
            ("processed", of(event, attempt=2)),
        ]
        sold = sample_event("shop.sold")
        post(sold)
        sent.clear()
        webhooks.drain()
        assert sent == [("dead", of(sold, attempt=1, error="PermanentError: sold"))]


@pytest.mark.django_db
def test_an_attempt_that_is_only_postponed_is_no_failure(sent):
    @webhooks.on("shop.*", name="work")
    def work(event):
        raise RetryLater(0)

    post(sample_event("shop.opened"))
    webhooks.drain()
    # The last one has no attempt left.
    assert [name for name, _ in sent] == ["received", "dead"]


@pytest.mark.django_db
def test_an_attempt_in_which_another_handler_failed_is_a_failure(sent):
    @webhooks.on("shop.opened", name="waits")
    def waits(event):
        raise RetryLater(60)

    @webhooks.on("shop.opened", name="fails")
    def fails(event):
        raise ValueError("no")

    post(sample_event("shop.opened"))
    webhooks.drain()
    assert [name for name, _ in sent] == ["received", "failed"]


@pytest.mark.django_db
def test_a_redelivery_is_signalled_if_it_rearms_a_dead_event(sent):
    @webhooks.on("shop.*", name="work")
    def work(event):
        raise PermanentError("no")

    event = sample_event("shop.opened")
    post(event)
    post(event)
    webhooks.drain()
    post(event)
    assert [(name, values.get("added")) for name, values in sent] == [
        ("received", "new"),
        ("dead", None),
        ("received", "rearmed"),
    ]


@pytest.mark.django_db
def test_an_ignored_event_is_signalled_once_when_it_is_received(sent):
    post(sample_event("shop.unknown"))
    assert webhooks.drain() == 1
    assert [name for name, _ in sent] == ["received"]


@pytest.mark.django_db
def test_without_a_worker_receivers_run_in_the_calling_thread():
    """So they see the data of a test's transaction, and their changes are rolled back with it."""
    webhooks.on("shop.opened", name="enrol")(lambda event: Member.objects.create(name="Ada"))
    observed = []

    def observe(**_):
        observed.append((threading.current_thread(), connection.in_atomic_block, Member.objects.count()))

    with connected(event_received, observe), connected(event_processed, observe):
        post(sample_event("shop.opened"))
        webhooks.drain()
    here = threading.current_thread()
    assert observed == [(here, True, 0), (here, True, 1)]


@pytest.mark.django_db
def test_a_failing_receiver_is_logged_and_affects_nothing_else(sent, caplog):
    webhooks.on("shop.opened", name="work")(lambda event: None)

    def fail(**_):
        raise ZeroDivisionError("a receiver failed, password=hunter2\nERROR forged")

    with ExitStack() as stack:
        for signal in (event_received, event_processed):
            stack.enter_context(connected(signal, fail))
            # Receivers are called in the order in which they were connected.
            stack.enter_context(connected(signal, lambda **_: sent.append(("after", {}))))
        event = sample_event("shop.opened")
        post(event)
        assert webhooks.drain() == 1
    assert webhooks.inbox.get(event.id).status == "processed"
    assert [name for name, _ in sent] == ["received", "after", "processed", "after"]
    assert caplog.text.count("ZeroDivisionError: a receiver failed") == 2
    assert "hunter2" not in caplog.text
    assert "\nERROR forged" not in caplog.text


@pytest.fixture
def worker(transactional_db):
    handled = []
    webhooks.on("shop.*", name="work")(lambda event: handled.append(event.id))
    webhooks.start()
    yield handled
    webhooks.stop()
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("envoyou-signals")])


def test_a_workers_signals_are_sent_in_their_own_thread_where_the_orm_works(worker):
    observed = []

    def observe(event_id, **_):
        Member.objects.create(name=event_id[-20:])
        observed.append((threading.current_thread().name, connection.connection))

    with connected(event_processed, observe):
        for event in (first := sample_event("shop.opened"), second := sample_event("shop.opened")):
            post(event)
            wait_until(lambda event=event: Member.objects.filter(name=event.id[-20:]).exists())
        wait_until(lambda: len(observed) == 2)
    assert {name for name, _ in observed} == {"envoyou-signals-default-1"}
    # Connections are closed at their maximum age: if it is zero, each signal gets a new one.
    assert len({id(own) for _, own in observed}) == 2
    assert worker == [first.id, second.id]


def test_a_slow_receiver_delays_no_event(worker):
    release, sent = threading.Event(), []

    def wait(event_id, **_):
        release.wait(PATIENCE)
        sent.append(event_id)

    with connected(event_processed, wait):
        events = [sample_event("shop.opened") for _ in range(20)]
        for event in events:
            post(event)
        wait_until(lambda: webhooks.inbox.stats().by_status["processed"] == len(events))
        assert sent == []
        release.set()
        # Pending signals are sent before `stop` returns.
        webhooks.stop()
        assert sorted(sent) == sorted(event.id for event in events)


def test_without_a_receiver_there_is_no_thread(worker):
    post(event := sample_event("shop.opened"))
    wait_until(lambda: webhooks.inbox.get(event.id).status == "processed")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("envoyou-signals")]


STOPPING_PROCESS = """
import os, sys, time
from threading import Event, Timer
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    INSTALLED_APPS=["envoyou_django"],
    ENVOYOU={"WEBHOOK_SECRET": "whsec_test"},
)
django.setup()
from django.core.management import call_command
from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.signals import event_processed
call_command("migrate", verbosity=0)
started = Event()

@webhooks.on("user.*")
def work(event):
    started.set()
    if sys.argv[2] == "process":
        os.kill(os.getpid(), 15)
    time.sleep(0.3)

def report(event_type, **_):
    time.sleep(0.3)
    print("processed", event_type, flush=True)

event_processed.connect(report)
delivery = sign_delivery(sample_event("user.created"), secret="whsec_test")
assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
if sys.argv[2] == "process":
    webhooks.run_worker()
else:
    webhooks.start()
    assert started.wait(20)
"""


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_worker_that_stops_sends_the_signals_of_the_events_it_finishes(kind, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", STOPPING_PROCESS, str(tmp_path / "project.db"), kind],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "processed user.created\n", run.stderr
