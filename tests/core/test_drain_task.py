"""The task of a task queue: what it handles, when it enqueues the next one, and Celery's own."""

import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest

from envoyou_core.worker import task
from envoyou_core.worker.task import DrainTask


class Fake:
    """A `Webhooks` whose `drain` settles so many events."""

    def __init__(self, *settled, until_due=None):
        self.settled = [*settled]
        self.until_due = until_due
        self.budgets = []
        self.retentions = 0

    def drain(self, *, within):
        self.budgets.append(within)
        return self.settled.pop(0)

    def apply_retention(self):
        self.retentions += 1

    def seconds_until_next_due(self):
        return self.until_due


def test_a_task_that_has_settled_events_enqueues_one_for_the_next_retry():
    enqueued = []
    DrainTask(Fake(2, until_due=1.5), enqueued.append).run()
    assert enqueued == [1.5]


@pytest.mark.parametrize(("settled", "until_due"), [(0, 1.5), (2, None)])
def test_a_task_enqueues_none_if_nothing_was_settled_or_will_be_due(settled, until_due):
    enqueued = []
    DrainTask(Fake(settled, until_due=until_due), enqueued.append).run()
    assert enqueued == []


def test_a_task_is_enqueued_for_the_same_retry_once():
    enqueued = []
    webhooks = Fake(1, 1, 1, until_due=60.0)
    drains = DrainTask(webhooks, enqueued.append)
    drains.run()
    drains.run()
    assert enqueued == [60.0]
    webhooks.until_due = 5.0
    drains.run()
    assert enqueued == [60.0, 5.0]


def test_a_task_whose_time_is_up_enqueues_another_at_once(monkeypatch):
    monkeypatch.setattr(task, "TIME_BUDGET", 0.0)
    enqueued = []
    DrainTask(Fake(1, until_due=60.0), enqueued.append).run()
    assert enqueued == [0.0]


def test_the_retention_is_applied_once_an_hour():
    webhooks = Fake(0, 0)
    drains = DrainTask(webhooks, [].append)
    drains.run()
    drains.run()
    assert webhooks.retentions == 1


# Celery


def run(script):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)


def test_without_celery_the_error_names_the_package_to_install():
    ran = run(
        """
        import sys
        sys.modules["celery"] = None
        from envoyou_core import Webhooks
        Webhooks(secret="s", inbox="memory:", handoff="celery")
        """
    )
    assert ran.returncode == 1
    assert "ConfigurationError: handoff 'celery' requires Celery" in ran.stderr
    assert "envoyou-webhooks[celery]" in ran.stderr


@pytest.mark.skipif(find_spec("celery") is None, reason="Celery is not installed")
def test_a_process_without_a_celery_app_reports_it():
    ran = run(
        """
        import threading
        from envoyou_core import WebhookRequest, Webhooks
        from envoyou_core.observability import WakeFailed
        from envoyou_core.testing import sample_event, sign_delivery

        webhooks = Webhooks(secret="s", inbox="memory:", handoff="celery")
        reported = threading.Event()
        webhooks.subscribe(lambda notice: reported.set() if isinstance(notice, WakeFailed) else None)
        delivery = sign_delivery(sample_event(), secret="s")
        request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        assert webhooks.receive(request).status == 200
        assert reported.wait(20)
        """
    )
    assert ran.returncode == 0, ran.stderr
    assert "call app.set_default()" in ran.stderr


@pytest.mark.skipif(find_spec("celery") is None, reason="Celery is not installed")
def test_the_newest_webhooks_of_a_name_handle_the_events():
    """An application factory may be called several times in a process."""
    ran = run(
        """
        from celery import Celery
        from envoyou_core import Webhooks
        from envoyou_core.inbox import NewEvent
        from envoyou_core.testing import sample_event

        def make():
            webhooks = Webhooks(secret="s", inbox="memory:", handoff="celery")
            webhooks.on("*")(lambda event: print("handled", event.id))
            webhooks.inbox.add(NewEvent(sample_event(id=f"evt_{len(made)}")))
            made.append(webhooks)

        made = []
        make()
        app = Celery(broker="memory://", set_as_current=False)
        app.set_default()
        make()
        app.tasks["envoyou.handle_due_events"]("default")
        try:
            app.tasks["envoyou.handle_due_events"]("billing")
        except Exception as error:
            print(error)
        """
    )
    assert ran.returncode == 0, ran.stderr
    handled, error = ran.stdout.splitlines()
    assert handled == "handled evt_1"
    assert "no Webhooks named 'billing'" in error
