"""Tests of the admin of rejected deliveries."""

import json
from io import StringIO

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse

from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.models import ProcessedEvent, RejectedDelivery
from envoyou_django.runtime import DjangoWebhooks
from tests.django.conftest import SECRET

pytestmark = pytest.mark.django_db

ADMIN = "admin:envoyou_django_rejecteddelivery"
LIST = f"{ADMIN}_changelist"
EVENT_TYPE = "X-EnvoyOU-Event-Type"
PRIVATE = b'{"email": "private@example.com"}'


@pytest.fixture(autouse=True)
def woken(monkeypatch):
    """The calls that wake a worker."""
    calls = []
    monkeypatch.setattr(DjangoWebhooks, "wake", lambda self: calls.append(self))
    return calls


@pytest.fixture
def deliver(client):
    """Delivers a body that is answered 400, and returns its row."""

    def deliver(body, **changes):
        headers = sign_delivery(body, secret=SECRET).headers | changes
        response = client.post("/webhooks/envoyou", body, content_type="application/json", headers=headers)
        assert response.status_code == 400
        return RejectedDelivery.objects.latest("pk")

    return deliver


@pytest.fixture
def staff(client):
    """Logs a user with the given permissions in; returns the client."""

    def log_in(*codenames):
        user, _ = User.objects.get_or_create(username="staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


def act(client, action, *rows):
    selected = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(reverse(LIST), selected, follow=True).content.decode()


def test_the_list_and_the_page_show_why_and_no_payload(admin_client, deliver):
    row = deliver(PRIVATE, **{EVENT_TYPE: "<b>"})
    for url in (reverse(LIST), page_url := reverse(f"{ADMIN}_change", args=[row.pk])):
        page = admin_client.get(url).content.decode()
        assert "invalid_payload" in page
        assert "private@example.com" not in page
        assert sign_delivery(PRIVATE, secret=SECRET).headers["X-EnvoyOU-Signature"] not in page
    page = admin_client.get(page_url).content.decode()
    assert "&lt;b&gt;" in page
    assert 'name="_save"' not in page
    download = admin_client.get(reverse(f"{ADMIN}_payload", args=[row.pk]))
    assert download.content == PRIVATE
    assert download["Content-Disposition"] == f'attachment; filename="rejected-{row.pk}.json"'


def test_retrying_accepts_what_passes_and_says_why_the_rest_does_not(admin_client, deliver, woken):
    event = sample_event("user.created")
    changed, shapeless = deliver(event.body, **{EVENT_TYPE: "user.deleted"}), deliver(PRIVATE)
    assert "contradicts the body" in act(admin_client, "retry", changed)
    assert ProcessedEvent.objects.count() == 0
    page = act(admin_client, "retry_with_signed_headers", changed, shapeless)
    assert f"{shapeless.pk}: the body is not an event" in page
    assert "1 delivery was accepted." in page
    assert list(RejectedDelivery.objects.all()) == [shapeless]
    assert ProcessedEvent.objects.get().event_id == event.id
    assert webhooks.inbox.stats().rejected == 1
    assert LogEntry.objects.filter(object_repr=str(changed), change_message="Retried.").count() == 2
    assert woken


def test_the_history_of_an_interrupted_retry_says_what_is_done(admin_client, deliver, monkeypatch):
    rows = [deliver(PRIVATE), deliver(PRIVATE + b" ")]
    retried = []

    def retry(_, key, **keywords):
        if retried:
            raise KeyboardInterrupt
        retried.append(key)

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", False)
    monkeypatch.setattr(DjangoWebhooks, "retry_rejected", retry)
    with pytest.raises(KeyboardInterrupt):
        act(admin_client, "retry", *rows)
    assert [int(entry.object_id) for entry in LogEntry.objects.all()] == retried == [rows[0].pk]


def test_the_command_lists_shows_and_retries(deliver, capsys):
    event = sample_event("user.created")
    row = deliver(event.body, **{EVENT_TYPE: "user.deleted"})

    def run(*arguments):
        output = StringIO()
        call_command("envoyou", "rejected", *map(str, arguments), stdout=output)
        return output.getvalue()

    assert str(row.pk) in run("list")
    assert json.loads(run("list", "--json"))[0]["reason"] == "header_mismatch"
    assert "user.deleted" in run("show", row.pk)
    assert json.loads(run("show", row.pk, "--json"))["key"] == row.pk
    with pytest.raises(CommandError, match="has failed"):
        run("retry", row.pk)
    assert f"still rejected, or not found: {row.pk}" in capsys.readouterr().err
    assert run("retry", row.pk, "--signed-headers") == f"{row.pk}: accepted {event.id} (user.created)\n"
    with pytest.raises(CommandError, match="has failed"):
        run("show", row.pk)
    assert "rejected delivery not found" in capsys.readouterr().err


def test_each_right_is_needed(staff, deliver):
    event = sample_event("user.created")
    row = deliver(event.body, **{EVENT_TYPE: "user.deleted"})
    assert staff().get(reverse(LIST)).status_code == 403
    assert staff().get(reverse(f"{ADMIN}_payload", args=[row.pk])).status_code == 403
    viewer = staff("view_rejecteddelivery")
    assert viewer.get(reverse(LIST)).status_code == 200
    act(viewer, "retry_with_signed_headers", row)
    assert RejectedDelivery.objects.count() == 1
    act(staff("view_rejecteddelivery", "retry_rejecteddelivery"), "retry_with_signed_headers", row)
    assert RejectedDelivery.objects.count() == 0
