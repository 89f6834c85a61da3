"""What a project's receivers are told, where, and what becomes of it when they fail."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from django.db import connection
from django.test import Client, override_settings

from envoyou_core import PermanentError
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
    answer = Client().post(
        "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
    )
    assert answer.status_code == 200


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextmanager
def connected(signal, receiver):
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        assert signal.disconnect(receiver)


@pytest.fixture
def told():
    """What was told, in its order: by which signal, and with what. Its sender is checked, its seconds left out."""
    heard = []

    def hear(name):
        def receiver(sender, signal, **values):
            assert sender is ProcessedEvent
            assert values.pop("name") == "default"
            assert values.pop("seconds", 0.0) >= 0.0
            heard.append((name, values))

        return receiver

    with ExitStack() as stack:
        for name, signal in SIGNALS.items():
            stack.enter_context(connected(signal, hear(name)))
        yield heard


def of(event, **more):
    return {"event_id": event.id, "event_type": event.type, **more}


@pytest.mark.django_db
def test_each_tells_what_happened(told):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "RETRY_DELAYS": [0]}):

        @webhooks.on("shop.*", name="work")
        def work(event, attempt):
            if event.type == "shop.sold":
                raise PermanentError("sold")
            if attempt == 1:
                raise ValueError("not yet")

        event = sample_event("shop.opened")
        post(event)
        assert told == [("received", of(event, added="new", tenant=""))]
        told.clear()
        webhooks.drain(until_idle=True)
        assert told == [
            ("failed", of(event, attempt=1, error="ValueError: not yet", retry_in=0.0)),
            ("processed", of(event, attempt=2)),
        ]
        sold = sample_event("shop.sold")
        post(sold)
        told.clear()
        webhooks.drain()
        assert told == [("dead", of(sold, attempt=1, error="PermanentError: sold"))]


@pytest.mark.django_db
def test_a_redelivery_is_told_where_it_brings_a_dead_event_back(told):
    @webhooks.on("shop.*", name="work")
    def work(event):
        raise PermanentError("no")

    event = sample_event("shop.opened")
    post(event)
    post(event)
    webhooks.drain()
    post(event)
    assert [(name, values.get("added")) for name, values in told] == [
        ("received", "new"),
        ("dead", None),
        ("received", "rearmed"),
    ]


@pytest.mark.django_db
def test_what_is_ignored_is_told_of_when_it_came_and_not_again(told):
    post(sample_event("shop.unheard_of"))
    assert webhooks.drain() == 1
    assert [name for name, _ in told] == ["received"]


@pytest.mark.django_db
def test_without_a_worker_receivers_are_called_where_the_caller_is():
    """So they see what a test's transaction holds, and what they do is undone with it."""
    webhooks.on("shop.opened", name="enrol")(lambda event: Member.objects.create(name="Ada"))
    seen = []

    def see(**_):
        seen.append((threading.current_thread(), connection.in_atomic_block, Member.objects.count()))

    with connected(event_received, see), connected(event_processed, see):
        post(sample_event("shop.opened"))
        webhooks.drain()
    here = threading.current_thread()
    assert seen == [(here, True, 0), (here, True, 1)]


@pytest.mark.django_db
def test_a_receiver_that_fails_is_logged_and_harms_nobody(told, caplog):
    webhooks.on("shop.opened", name="work")(lambda event: None)

    def fail(**_):
        raise ZeroDivisionError("a receiver's own, password=hunter2\nERROR forged")

    with ExitStack() as stack:
        for signal in (event_received, event_processed):
            stack.enter_context(connected(signal, fail))
            # Connected after it, and called after it.
            stack.enter_context(connected(signal, lambda **_: told.append(("after", {}))))
        event = sample_event("shop.opened")
        post(event)
        assert webhooks.drain() == 1
    assert webhooks.inbox.get(event.id).status == "processed"
    assert [name for name, _ in told] == ["received", "after", "processed", "after"]
    assert caplog.text.count("ZeroDivisionError: a receiver's own") == 2
    assert "hunter2" not in caplog.text
    assert "\nERROR forged" not in caplog.text


@pytest.fixture
def worker(transactional_db):
    handled = []
    webhooks.on("shop.*", name="work")(lambda event: handled.append(event.id))
    webhooks.start()
    yield handled
    webhooks.stop()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("envoyou-signals")])


def test_a_workers_signals_have_a_thread_of_their_own_in_which_the_orm_may_be_used(worker):
    seen = []

    def see(event_id, **_):
        Member.objects.create(name=event_id[-20:])
        seen.append((threading.current_thread().name, connection.connection))

    with connected(event_processed, see):
        for event in (first := sample_event("shop.opened"), second := sample_event("shop.opened")):
            post(event)
            until(lambda event=event: Member.objects.filter(name=event.id[-20:]).exists())
        until(lambda: len(seen) == 2)
    assert {name for name, _ in seen} == {"envoyou-signals-default-1"}
    # Its connections are looked after: with an age of nothing, each signal has its own.
    assert len({id(own) for _, own in seen}) == 2
    assert worker == [first.id, second.id]


def test_a_slow_receiver_holds_no_event_up(worker):
    release, told = threading.Event(), []

    def wait(event_id, **_):
        release.wait(PATIENCE)
        told.append(event_id)

    with connected(event_processed, wait):
        events = [sample_event("shop.opened") for _ in range(20)]
        for event in events:
            post(event)
        until(lambda: webhooks.inbox.stats().by_status["processed"] == len(events))
        assert told == []
        release.set()
        # What is to be told is told before it has stopped.
        webhooks.stop()
        assert sorted(told) == sorted(event.id for event in events)


def test_without_a_receiver_there_is_no_thread(worker):
    post(event := sample_event("shop.opened"))
    until(lambda: webhooks.inbox.get(event.id).status == "processed")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("envoyou-signals")]


PROCESS_THAT_ENDS = """
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
begun = Event()

@webhooks.on("user.*")
def work(event):
    begun.set()
    if sys.argv[2] == "process":
        os.kill(os.getpid(), 15)
    time.sleep(0.3)

def tell(event_type, **_):
    time.sleep(0.3)
    print("told of", event_type, flush=True)

event_processed.connect(tell)
delivery = sign_delivery(sample_event("user.created"), secret="whsec_test")
assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
if sys.argv[2] == "process":
    webhooks.run_worker()
else:
    webhooks.start()
    assert begun.wait(20)
"""


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_worker_that_is_told_to_end_tells_of_what_it_finishes(kind, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", PROCESS_THAT_ENDS, str(tmp_path / "project.db"), kind],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "told of user.created\n", run.stderr
