"""Who clears up where no worker runs."""

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError

from envoyou_core.retention import RetentionReport
from envoyou_django import tasks, webhooks

pytestmark = pytest.mark.django_db


@pytest.fixture
def cleared(monkeypatch):
    found = []
    made = webhooks.setup()
    apply = made.apply_retention
    monkeypatch.setattr(made, "apply_retention", lambda: found.append(apply()) or found[-1], raising=False)
    return found


def test_a_task_does_so_at_first_and_then_hourly(cleared, monkeypatch):
    monkeypatch.setattr(tasks, "_next_maintenance", float("-inf"))
    tasks.work_off()
    tasks.work_off()
    assert cleared == [RetentionReport(0, 0, 0)]
    monkeypatch.setattr(tasks, "_next_maintenance", tasks._next_maintenance - tasks.MAINTENANCE_INTERVAL)
    tasks.work_off()
    assert len(cleared) == 2


def test_cron_does_so_after_it_has_drained(cleared):
    call_command("envoyou_worker", "--drain")
    assert len(cleared) == 1


@pytest.mark.parametrize("error", [OperationalError("away"), InterfaceError("away")])
def test_a_database_that_is_away_is_said_in_a_line(monkeypatch, error):
    def fails(**_):
        raise error

    monkeypatch.setattr(webhooks.setup(), "drain", fails)
    with pytest.raises(CommandError, match="away"):
        call_command("envoyou_worker", "--drain")
