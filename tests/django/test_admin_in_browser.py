"""Tests of the admin in a browser, in light and dark mode, under a strict content security policy."""

import math
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django import VERSION as DJANGO
from django.contrib.auth.models import User

from envoyou_core import EVENT_TYPES
from envoyou_core.alerts.rules import RuleState
from envoyou_core.alerts.states import AlertStates
from envoyou_core.analytics.rollups import RollUp, Tally
from envoyou_core.inbox import Attempt, Failure
from envoyou_core.inbox.history import encode_history
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.models import PausedSubject, ProcessedEvent
from tests import browser as browsers
from tests.browser import accessibility_violations
from tests.django.members.models import Member

browsers.require_browser()

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SCREENSHOTS = os.environ.get("ENVOYOU_TEST_SCREENSHOTS")
"""The directory for screenshots, if any."""

LIST = "/admin/envoyou_django/processedevent/"
VIEWPORT = {"width": 1440, "height": 900}

TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/site/accounts/webhooks.py", line 12, in keep_account
    mailbox.create(user["email"])
  File "/srv/site/mail/boxes.py", line 40, in create
    raise ConnectionError("the mail server does not answer")
ConnectionError: the mail server does not answer
"""


@pytest.fixture(scope="module")
def browser():
    # Playwright runs an event loop in the test's thread, where Django otherwise refuses queries.
    with pytest.MonkeyPatch.context() as patch, browsers.chromium() as browser:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield browser


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture
def page(browser, live_server, settings, scheme):
    settings.MIDDLEWARE = ["tests.django.middleware.ContentSecurityPolicy", *settings.MIDDLEWARE]
    User.objects.create_superuser("ada", password="analytical")
    context = browser.new_context(
        base_url=f"{live_server.url}{LIST}", color_scheme=scheme, viewport={"width": 1440, "height": 900}
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.errors = []
    page.on("console", lambda message: is_error(message) and page.errors.append(message.text))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(f"/admin/login/?next={LIST}")
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill("analytical")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Select event").wait_for()
    yield page
    context.close()
    assert page.errors == []


def is_error(message):
    # Browsers request the icon of every site, and this one has none.
    return message.type == "error" and not message.location["url"].endswith("/favicon.ico")


@pytest.fixture
def day(scheme):
    """The events of a day, most of them processed."""
    now = datetime.now(UTC)
    rows = []
    for number in range(400):
        # More events by day than by night.
        hours = number / 20
        ago = timedelta(hours=hours + math.sin(hours / 2.3) * 1.4)
        status = {37: "dead", 11: "ignored", 53: "failed", 90: "dead"}.get(number % 97, "processed")
        rows.append(row(f"evt_{number * 7919:08x}", EVENT_TYPES[number * 5 % 7], status, now - ago))
    waiting = row("evt_failed", "user.updated", "failed", now, due_at=now + timedelta(hours=1))
    waiting.history = encode_history(
        (
            Attempt(now - timedelta(minutes=3), None),
            Attempt(now, "failed", 1.25, (Failure("keep_account", "ConnectionError: the mail server", TRACEBACK),)),
        )
    )
    ProcessedEvent.objects.bulk_create([*reversed(rows), waiting])
    webhooks.inbox.add_rollups([rollup for each in (*rows, waiting) for rollup in counts_of(each)])
    states = AlertStates({"dead_letters": RuleState(fired_at=now.timestamp() - 900, value=4.0)})
    webhooks.inbox.claim_alerts("token", 60.0)
    webhooks.inbox.store_alerts("token", states.encode(), 60.0)


def counts_of(row):
    """What was counted of an event."""
    end = {"dead": ["event.dead"], "failed": ["event.retried"]}.get(row.status, [])
    called = {"ignored": [], "processed": ["attempt.succeeded"]}.get(row.status, ["attempt.failed"])
    start = int(row.received_at.timestamp()) // 60 * 60
    return [RollUp(60, start, Tally(name, row.type, "", 1)) for name in ("delivery.accepted", *end, *called)]


def row(id, type, status, received_at, **values):
    event = sample_event(type, id=id, created=int(received_at.timestamp()))
    error = "ConnectionError: the mail server does not answer" if status in {"failed", "dead"} else None
    is_waiting = status in {"received", "failed"}
    return ProcessedEvent(
        **{
            "name": "default",
            "event_id": id,
            "type": type,
            "created": event.created,
            "webhook_id": event.webhook_id,
            "body": event.body,
            "status": status,
            "attempts": {"dead": 3, "failed": 1}.get(status, 1),
            "crashes": 0,
            "progress": {"keep_account": "done"} if status == "processed" else {},
            "received_at": received_at,
            "due_at": received_at + timedelta(hours=30) if is_waiting else None,
            "settled_at": None if is_waiting else received_at,
            "last_error": error,
            "object_key": event.object_id,
            **values,
        }
    )


PHONE = {"width": 390, "height": 844}


def check_on_phone(page, name, scheme):
    """Check that nothing lies beside a narrow screen, and that nothing widens the page."""
    page.set_viewport_size(PHONE)
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"django-admin-{name}-phone-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def check_page(page, name, scheme, height=VIEWPORT["height"]):
    if SCREENSHOTS:
        page.set_viewport_size({**VIEWPORT, "height": height})
        page.screenshot(path=Path(SCREENSHOTS) / f"django-admin-{name}-{scheme}.png")
        page.set_viewport_size(VIEWPORT)
    assert accessibility_violations(page) == []


def test_every_page_is_accessible(page, day, scheme):
    PausedSubject.objects.create(name="default", subject="type:auth.*")
    now = datetime.now(UTC)
    # The server's worker takes what is due, but not what waits for a handler that it does not have.
    row("evt_waiting", "user.created", "received", now, due_at=now + timedelta(hours=1), waits_for="welcome").save()
    page.reload()
    page.get_by_text("1 event waits for the handler").wait_for()
    check_page(page, "list", scheme)
    page.get_by_text("Show as table").click()
    check_on_phone(page, "list", scheme)
    failed = page.get_by_role("row", name="evt_failed")
    for text in ("failed", "attempts: 1", "due at: 2"):
        box = failed.get_by_text(text).first.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE["width"]
    page.set_viewport_size(VIEWPORT)
    page.get_by_role("link", name="evt_failed").click()
    page.get_by_role("heading", name="Payload").wait_for()
    page.locator("summary", has_text="keep_account").click()
    check_page(page, "event", scheme, height=1560)
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWPORT["width"]
    page.get_by_role("button", name="Requeue").click()
    page.get_by_role("heading", name="Requeue events?").wait_for()
    check_page(page, "requeue", scheme, height=400)


def test_a_large_payload_is_shown_in_part_and_downloaded_whole(page, day, scheme):
    deep = b'{"a":[' * 200 + b"1" + b"]}" * 200
    rows = b"[" + b"true," * 50_000 + b"1]"
    body = b'{"id":"evt_large","note":"' + b"x" * 5_000 + b'","deep":' + deep + b',"rows":' + rows + b"}"
    ProcessedEvent.objects.filter(event_id="evt_failed").update(body=body)
    page.reload()
    page.get_by_role("link", name="evt_failed").click()
    payload = page.get_by_role("region", name="payload")
    payload.wait_for()
    assert len(payload.inner_text()) < 100_000
    check_page(page, "large-payload", scheme, height=1200)
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWPORT["width"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the payload").click()
    assert Path(download.value.path()).read_bytes() == body
    assert download.value.suggested_filename == "evt_failed.json"


@pytest.mark.parametrize("scheme", ["light"], indirect=True)
class TestOperator:
    def test_finds_an_event(self, page, day):
        page.reload()
        page.get_by_role("listitem").filter(has=page.get_by_text("dead", exact=True)).get_by_role("link").first.click()
        page.wait_for_url("**/?status__exact=dead")
        dead = ProcessedEvent.objects.filter(status="dead").count()
        assert page.locator("#result_list tbody tr").count() == dead > 3
        page.locator("#changelist-filter").get_by_text("auth.login", exact=True).click()
        page.wait_for_url("**type=auth.login**")
        assert page.locator("#result_list tbody tr").count() < dead
        page.locator("#searchbar").fill("evt_failed")
        page.get_by_role("button", name="Search").click()
        page.get_by_text("0 results").wait_for()
        page.get_by_text("Clear all filters").click()
        page.locator("#searchbar").fill("evt_failed")
        page.get_by_role("button", name="Search").click()
        page.get_by_text("1 result ").wait_for()
        assert page.locator("#result_list tbody tr").count() == 1

    def test_sees_the_chart(self, page, day):
        page.reload()
        chart = page.get_by_role("img", name="Events received in each of the last 24 hours")
        assert chart.locator("g").count() == 24
        heights = [bar.bounding_box()["height"] for bar in chart.locator(".envoyou-events").all()]
        assert max(heights) == pytest.approx(60, abs=1)
        page.get_by_text("Show as table").click()
        received = [int(cell.inner_text()) for cell in page.locator(".envoyou-summary td:nth-child(2)").all()]
        assert len(received) == 24
        assert sum(received) == ProcessedEvent.objects.count()
        assert received.index(max(received)) == heights.index(max(heights))

    def test_requeues_selected_events_after_confirmation(self, page, day):
        page.goto("?status__exact=dead")
        dead = ProcessedEvent.objects.filter(status="dead").count()
        select_and_requeue(page)
        page.get_by_text(f"{dead} events will be changed:").wait_for()
        assert ProcessedEvent.objects.filter(status="dead").count() == dead
        page.get_by_role("link", name="No, take me back").click()
        page.wait_for_url("**/?status__exact=dead")
        select_and_requeue(page)
        page.get_by_role("button", name="Yes, requeue").click()
        page.get_by_text(f"{dead} events were requeued.").wait_for()
        assert not ProcessedEvent.objects.filter(status="dead").exists()

    def test_leaves_an_action_on_many_events_to_its_page(self, page, day, monkeypatch):
        monkeypatch.setattr("envoyou_django.inbox.bulk.BATCH", 2)
        monkeypatch.setattr("envoyou_django.admin.bulk.STEP", 0.0)
        page.goto("?status__exact=dead")
        dead = ProcessedEvent.objects.filter(status="dead").count()
        select_and_requeue(page)
        page.get_by_role("button", name="Yes, requeue").click()
        page.get_by_text(f"{dead} events were requeued.").wait_for()
        page.wait_for_url("**/?status__exact=dead")
        assert not ProcessedEvent.objects.filter(status="dead").exists()

    def test_marks_an_event_dead(self, page, day):
        page.goto("?q=evt_failed")
        page.get_by_role("link", name="evt_failed").click()
        page.get_by_role("button", name="Mark dead").click()
        page.get_by_role("button", name="Yes, mark dead").click()
        page.get_by_text("1 event was marked dead.").wait_for()
        assert ProcessedEvent.objects.get(event_id="evt_failed").status == "dead"

    def test_runs_a_waiting_event_now(self, page):
        later = datetime.now(UTC) + timedelta(hours=1)
        body = sample_event("member.joined", id="evt_joined", object={"name": "Ada"}).body
        row("evt_joined", "member.joined", "failed", later, due_at=later, body=body).save()
        page.goto("?q=evt_joined")
        page.get_by_role("link", name="evt_joined").click()
        page.get_by_role("button", name="Run now").click()
        page.get_by_text("The event is due now.").wait_for()
        wait_for(lambda: ProcessedEvent.objects.get(event_id="evt_joined").status == "processed")
        assert Member.objects.get().name == "Ada"
        page.reload()
        page.locator(".field-state .envoyou-processed").wait_for()
        assert page.get_by_role("button", name="Run now").count() == 0


def select_and_requeue(page):
    page.get_by_label("Select all objects on this page for an action").check()
    page.get_by_label("Action:").select_option("Requeue selected events")
    page.get_by_role("button", name="Run" if DJANGO >= (6, 0) else "Go").click()


def wait_for(condition, timeout=60.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
