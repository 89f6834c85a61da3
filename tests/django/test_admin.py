"""Tests of the admin through the test client."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from envoyou_core.alerts.rules import RuleState
from envoyou_core.alerts.states import AlertStates
from envoyou_core.analytics.rollups import RollUp, Tally
from envoyou_core.event import MAX_CREATED
from envoyou_core.inbox import Failure, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.admin.summary import summarize
from envoyou_django.models import ProcessedEvent
from tests.django.conftest import SECRET

pytestmark = pytest.mark.django_db

LIST = "admin:envoyou_django_processedevent_changelist"
CHANGE = "admin:envoyou_django_processedevent_change"
PAYLOAD = "admin:envoyou_django_processedevent_payload"
APPLY = "admin:envoyou_django_processedevent_apply"


@pytest.fixture
def dead():
    webhooks.inbox.add(
        NewEvent(sample_event(id="evt_dead", object={"id": "usr_dead", "name": "<b>Zoë</b> \ud83d"}))
    ).result()
    (claim,) = webhooks.inbox.claim(1, 60)
    failure = Failure("members.welcome", "OSError: no mail today", "Traceback:\n  send(<script>)\nOSError: no mail")
    settlement = Settlement(Status.DEAD, 3, error="OSError: no mail today", seconds=1.5, failures=(failure,))
    webhooks.inbox.settle(claim, settlement)
    return ProcessedEvent.objects.get()


def formatted(moment):
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"


def test_the_list_is_newest_first(admin_client, dead):
    webhooks.inbox.add(NewEvent(sample_event("auth.login", id="evt_other")))
    page = admin_client.get(reverse(LIST)).content.decode()
    assert page.index("evt_other") < page.index("evt_dead")
    assert "no mail today" in page


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("status__exact=dead", True),
        ("status__exact=processed", False),
        ("type=user.created", True),
        ("type=auth.login", False),
        ("q=evt_dead", True),
        ("q=+evt_dead+", True),
        ("q=evt_alive", False),
        ("q=EVT_DEAD", False),
        ("q=evt_dea_", False),
        ("q=evt_d", False),
        ("q=usr_dead", True),
        ("q=usr dead", False),
        ("day=2026-06-30", False),
        ("day=2026-07-01", True),
        ("day=2026-07-02", False),
        ("name=default", True),
        ("name=other", False),
    ],
)
@pytest.mark.parametrize("use_tz", [True, False])
def test_filters_and_search(admin_client, dead, settings, use_tz, query, matches):
    settings.USE_TZ = use_tz
    # It is still the first of July in New York.
    ProcessedEvent.objects.update(received_at=datetime(2026, 7, 2, 3, 59, tzinfo=UTC))
    page = admin_client.get(f"{reverse(LIST)}?{query}")
    assert page.status_code == 200
    assert ("no mail today" in page.content.decode()) is matches


def test_the_page_of_an_event_is_escaped_and_read_only(admin_client, dead):
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    assert "&lt;b&gt;Zoë&lt;/b&gt; \\ud83d" in page
    assert 'name="_save"' not in page
    assert "Delete" not in page


def test_the_history_shows_each_attempt(admin_client, dead, clock):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "CLOCK": clock}):
        webhooks.inbox.requeue("evt_dead")
        webhooks.inbox.claim(1, 60)
        clock.advance(60)
        webhooks.inbox.claim(1, 60)
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    (attempt,) = webhooks.inbox.get("evt_dead").history[:1]
    first, second = re.findall(r'<tr class="envoyou-attempt">.*?</tr>', page, flags=re.DOTALL)
    assert formatted(attempt.began_at) in first
    assert formatted(attempt.ended_at) in first
    assert "members.welcome</bdi></strong>: <bdi>OSError: no mail today" in first
    assert "send(&lt;script&gt;)" in first
    assert "<script>)" not in page
    assert formatted(clock.moment()) in second
    assert "worker crashed" in second


def test_a_new_event_has_no_history(admin_client):
    webhooks.inbox.add(NewEvent(sample_event(id="evt_new")))
    page = admin_client.get(reverse(CHANGE, args=[ProcessedEvent.objects.get().pk]))
    assert page.status_code == 200
    assert "worker crashed" not in page.content.decode()


def test_kept_headers_are_shown_with_the_payload(admin_client):
    webhooks.inbox.add(NewEvent(sample_event(), headers={"X-Region": "<b>eu-1</b>"}))
    page = admin_client.get(reverse(CHANGE, args=[ProcessedEvent.objects.get().pk])).content.decode()
    assert "<bdi>X-Region</bdi>: <bdi>&lt;b&gt;eu-1&lt;/b&gt;</bdi>" in page


def test_an_erased_event_shows_when_its_payload_was_deleted(admin_client, dead):
    assert "usr_dead" in admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    webhooks.inbox.erase("usr_dead")
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    assert page.count("usr_dead") == page.count("?q=usr_dead") + 1 == 2
    assert "Zoë" not in page
    assert "no mail today" not in page
    assert formatted(reloaded().scrubbed_at) in page


def reloaded():
    return ProcessedEvent.objects.get(event_id="evt_dead")


def test_events_cannot_be_added_changed_or_deleted(admin_client, dead):
    assert admin_client.get(reverse("admin:envoyou_django_processedevent_add")).status_code == 403
    assert admin_client.post(reverse(CHANGE, args=[dead.pk]), {"status": "processed"}).status_code == 403
    assert admin_client.post(reverse("admin:envoyou_django_processedevent_delete", args=[dead.pk])).status_code == 403
    dead.refresh_from_db()
    assert dead.status == "dead"


def test_str_is_the_id_and_type(dead):
    assert str(dead) == "evt_dead (user.created)"
    assert json.loads(bytes(dead.body))["id"] == dead.event.id == "evt_dead"


@pytest.mark.parametrize("day", ["yesterday", "0001-01-01", "9999-12-31", "2026-02-30"])
def test_an_invalid_day_is_ignored(admin_client, dead, settings, day):
    # In Tokyo, the first day begins before the first day of UTC.
    settings.TIME_ZONE = "Asia/Tokyo"
    page = admin_client.get(f"{reverse(LIST)}?day={day}", follow=True)
    assert page.redirect_chain == [(f"{reverse(LIST)}?e=1", 302)]
    assert page.status_code == 200


def test_the_day_filter_offers_the_last_week(admin_client, settings, clock):
    # In New York it is still the fourteenth.
    clock.now = datetime(2026, 7, 15, 3, tzinfo=UTC).timestamp()
    settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET, "CLOCK": clock}
    page = admin_client.get(reverse(LIST)).content.decode()
    assert re.findall(r"\?day=(\S+?)[\"&]", page) == [f"2026-07-{day:02}" for day in range(14, 7, -1)]


def test_search_by_a_long_object_id(admin_client):
    webhooks.inbox.add(NewEvent(sample_event(id="evt_long", object={"id": "x" * 300})))
    page = admin_client.get(reverse(LIST), {"q": "x" * 300}).content.decode()
    assert "evt_long" in page


def test_the_inbox_filter_is_shown_if_there_are_several_inboxes(admin_client, dead):
    assert "?name=default" not in admin_client.get(reverse(LIST)).content.decode()
    dead.pk, dead.name = None, "billing"
    dead.save()
    assert "?name=billing" in admin_client.get(reverse(LIST)).content.decode()


@pytest.mark.parametrize(
    ("object", "expected"),
    [
        ({"name": "Zoë", "on": True}, "&quot;Zoë&quot;"),
        # Python's int() rejects it, msgspec does not.
        (b'{"digits": ' + b"7" * 5000 + b"}", "7" * 2000 + "…\n"),
        (b'{"amount": 1.10000000000000000001}', "1.10000000000000000001"),
        ({"note": 'a "key": in a text'}, r"&quot;a \&quot;key\&quot;: in a text&quot;"),
        ({"letters": "x" * 200_000}, "&quot;" + "x" * 2000 + "…&quot;"),
        ({"k" * 200_000: True}, "&quot;" + "k" * 2000 + "…&quot;: true"),
        ({"text": "a\u202eb\u2066c\x1b\ud83d"}, r"a\u202eb\u2066c\u001b\ud83d"),
        ({"empty": [{}, []]}, "[\n        {},\n        []\n      ]"),
    ],
)
def test_payloads_of_all_kinds_are_shown(admin_client, object, expected):
    body = object if isinstance(object, dict) else {"raw": True}
    event = sample_event(id="evt_1", object=body)
    webhooks.inbox.add(NewEvent(event)).result()
    if isinstance(object, bytes):
        ProcessedEvent.objects.update(body=event.body.replace(b'{"raw": true}', object))
    page = admin_client.get(reverse(CHANGE, args=[ProcessedEvent.objects.get().pk])).content.decode()
    text = re.search(r'<pre class="envoyou-payload".*?>(.*?)</pre>', page, flags=re.DOTALL)[1]
    assert expected in re.sub(r"</?span.*?>", "", text)


def nested(depth):
    return b"[" * depth + b"]" * depth


LARGE = {
    "deep": nested(50_000),
    "deep, many times": b"[" + b",".join([nested(400)] * 130) + b"]",
    "deep, as objects": b'{"a":' * 300 + b"1" + b"}" * 300,
    "wide": json.dumps(list(range(100_000))).encode(),
    "wide, of literals": json.dumps([True] * 150_000).encode(),
    "many names": json.dumps(dict.fromkeys(map(str, range(50_000)), "")).encode(),
    "long texts": json.dumps(["x" * 100_000] * 5).encode(),
    "long names": json.dumps({letter * 100_000: 1 for letter in "abcde"}).encode(),
    "quotes": json.dumps(['"' * 1_900] * 300).encode(),
    "no text": json.dumps(["\u202e" * 1_900] * 50).encode(),
    "long numbers": b"[" + b",".join([b"7" * 100_000] * 5) + b"]",
    "no JSON": b'\\"' * 200_000,
    "no UTF-8": b"\xff" * 500_000,
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_page_is_small_however_large_or_deep_its_payload_is(admin_client, dead, kind):
    ProcessedEvent.objects.update(body=LARGE[kind])
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content
    assert len(page) < 1_000_000
    assert "Too long or too deeply nested" in page.decode()
    download = admin_client.get(reverse(PAYLOAD, args=[dead.pk]))
    assert download.content == LARGE[kind]


def test_the_download_is_the_payload_as_sent(admin_client, dead):
    ProcessedEvent.objects.update(event_id='evt/"ä\u202e\r\n')
    page = admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    assert "Too long" not in page
    assert f'href="{reverse(PAYLOAD, args=[dead.pk])}"' in page
    response = admin_client.get(reverse(PAYLOAD, args=[dead.pk]))
    assert response.content == bytes(dead.body)
    assert response["Content-Type"] == "application/json"
    assert response["Content-Disposition"] == "attachment; filename*=utf-8''evt__%C3%A4___.json"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response["Content-Security-Policy"]
    assert "no-store" in response["Cache-Control"]


def test_the_download_requires_the_view_permission(admin_client, client, dead, django_user_model):
    url = reverse(PAYLOAD, args=[dead.pk])
    assert client.get(url).status_code == 302
    clerk = django_user_model.objects.create_user("clerk", is_staff=True)
    client.force_login(clerk)
    assert client.get(url).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_processedevent"))
    assert client.get(url).status_code == 200
    assert client.post(url).status_code == 405
    assert client.get(reverse(PAYLOAD, args=["nothing"])).status_code == 404


def test_a_deleted_payload_cannot_be_downloaded(admin_client, dead):
    webhooks.inbox.erase("usr_dead")
    url = reverse(PAYLOAD, args=[dead.pk])
    assert url not in admin_client.get(reverse(CHANGE, args=[dead.pk])).content.decode()
    assert admin_client.get(url).status_code == 404


def test_the_summary_counts_the_last_24_hours(clock):
    clock.now = datetime(2026, 7, 15, 12, 30, tzinfo=UTC).timestamp()
    hours = {0: "processed processed dead", 1: "failed", 23: "ignored", 24: "dead"}
    ProcessedEvent.objects.bulk_create(
        ProcessedEvent(
            name="default",
            event_id=f"evt_{ago}_{number}",
            type="user.created",
            created=0,
            body=b"{}",
            status=status,
            attempts=0,
            crashes=0,
            progress={},
            received_at=clock.moment() - timedelta(hours=ago, minutes=number),
        )
        for ago, statuses in hours.items()
        for number, status in enumerate(statuses.split())
    )
    counted = {
        0: {"delivery.accepted": 3, "event.dead": 1, "attempt.succeeded": 3, "attempt.failed": 1},
        1: {"delivery.accepted": 1, "event.retried": 1, "delivery.unavailable": 1},
        23: {"delivery.accepted": 1, "delivery.unauthorized": 9},
        24: {"delivery.accepted": 1},
    }
    for ago, numbers in counted.items():
        start = int(clock.now) - ago * 3600
        rollups = [RollUp(60, start, Tally(measure, "user.created", "", number)) for measure, number in numbers.items()]
        webhooks.inbox.add_rollups(rollups)
    states = AlertStates({"disk": RuleState(fired_at=clock.now, value=0.97), "silence": RuleState()}, host="web-1")
    webhooks.inbox.claim_alerts("token", 60.0, scope="web-1")
    webhooks.inbox.store_alerts("token", states.encode(), 60.0, scope="web-1")
    summary = summarize(ProcessedEvent.objects.all(), clock.moment())
    assert [(alert.rule, alert.host, alert.since) for alert in summary.alerts] == [("disk", "web-1", clock.moment())]
    assert {it.status: it.events for it in summary.counts} == {
        "received": 0,
        "processing": 0,
        "processed": 2,
        "ignored": 1,
        "failed": 1,
        "dead": 2,
    }
    figures = summary.figures
    assert len(figures.bars) == 24
    assert (figures.bars[0].starts_at, figures.bars[0].events) == (datetime(2026, 7, 14, 13, tzinfo=UTC), 1)
    assert [(bar.events, bar.failures) for bar in figures.bars[-2:]] == [(1, 1), (3, 1)]
    assert (figures.events, figures.failures, figures.peak) == (5, 2, 3)
    assert (figures.bars[-1].height, figures.bars[-1].failures_height, figures.bars[5].height) == (60, 20, 0)
    assert (round(figures.delivery_rate, 1), figures.error_rate) == (83.3, 25.0)


def test_the_number_of_queries_does_not_depend_on_the_number_of_events(admin_client, dead):
    change, confirmation = reverse(CHANGE, args=[dead.pk]), {"action": "requeue", "select_across": "1"}

    def count():
        counts = []
        for page in (
            lambda: admin_client.get(reverse(LIST)),
            lambda: admin_client.get(change),
            lambda: admin_client.post(reverse(LIST), {**confirmation, "_selected_action": dead.pk}),
        ):
            with CaptureQueriesContext(connection) as queries:
                assert page().status_code == 200
            counts.append(len(queries))
        return counts

    before = count()
    for number in range(60):
        dead.pk, dead.event_id = None, f"evt_{number}"
        dead.save()
    assert count() == before
    assert max(before) <= 18


def test_the_list_does_not_query_payloads(admin_client, dead):
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(reverse(LIST))
    assert not any('"body"' in query["sql"] for query in queries)


def test_the_latest_time_is_shown_in_every_time_zone(admin_client, settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    webhooks.inbox.add(NewEvent(sample_event(created=MAX_CREATED))).result()
    page = admin_client.get(reverse(CHANGE, args=[ProcessedEvent.objects.get().pk])).content.decode()
    assert "9999-12-31 23:59:59 UTC" in page


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("body", b"{{", "the body is not JSON"),
        ("body", b"", "the body is not JSON"),
        ("body", b"\xff", "the body is not UTF-8"),
        ("progress", '["welcome"]', "the column progress"),
        ("progress", '{"welcome": "postponed"}', "the column progress"),
        ("status", "postponed", "the column status"),
        ("created", "soon", None),
        ("attempts", "many", "the column attempts"),
        ("due_at", "soon", None),
        ("history", "[[", None),
    ],
)
def test_an_unreadable_row_is_shown(admin_client, dead, column, value, reason):
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE envoyou_processed_event SET {column} = %s", [value])
    page = admin_client.get(reverse(LIST))
    assert page.status_code == 200
    assert "evt_dead" in page.content.decode()
    page = admin_client.get(reverse(CHANGE, args=[dead.pk]))
    assert page.status_code == 200
    assert ("unreadable: " in page.content.decode()) is (reason is not None)
    assert reason is None or reason in page.content.decode()
    ProcessedEvent.objects.update(erase_requested_at=timezone.now())
    for action in ("requeue", "mark_dead", "run_now"):
        data = {"action": action, "_selected_action": [dead.pk], "start": 0, "until": dead.pk, "after": 0, "done": 0}
        assert admin_client.post(reverse(LIST), data).status_code == 200
        assert admin_client.post(reverse(APPLY), data).status_code == 302
