"""When the retention settings are applied if no worker runs."""

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError

from envoyou_core.adapter import MAINTENANCE_INTERVAL, DrainTask
from envoyou_core.retention import RetentionReport
from envoyou_django import tasks, webhooks

pytestmark = pytest.mark.django_db


@pytest.fixture
def reports(monkeypatch):
    reports = []
    project_webhooks = webhooks.setup()
    apply = project_webhooks.apply_retention
    monkeypatch.setattr(
        project_webhooks, "apply_retention", lambda: reports.append(apply()) or reports[-1], raising=False
    )
    return reports


def test_the_first_task_applies_it_and_then_one_each_hour(reports, monkeypatch):
    monkeypatch.setattr(tasks, "_drain", DrainTask(webhooks, tasks.enqueue))
    tasks.work_off()
    tasks.work_off()
    assert reports == [RetentionReport(0, 0, 0)]
    monkeypatch.setattr(tasks._drain, "_next_maintenance", tasks._drain._next_maintenance - MAINTENANCE_INTERVAL)
    tasks.work_off()
    assert len(reports) == 2


def test_a_drain_from_cron_applies_it(reports):
    call_command("envoyou", "worker", "--drain")
    assert len(reports) == 1


@pytest.mark.parametrize("error", [OperationalError("unavailable"), InterfaceError("unavailable")])
def test_an_unavailable_database_is_reported_in_one_line(monkeypatch, capsys, error):
    def fails(**_):
        raise error

    monkeypatch.setattr(webhooks.setup(), "drain", fails)
    with pytest.raises(CommandError, match="has failed"):
        call_command("envoyou", "worker", "--drain")
    assert capsys.readouterr().err == f"Error: {type(error).__name__}: unavailable\n"
