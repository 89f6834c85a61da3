"""Alerts over a real inbox: who evaluates them, and where they are sent. The rules are in test_alert_rules.py."""

import json
import logging
import socketserver
import threading
from collections import namedtuple
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from msgspec.structs import replace

from envoyou_core import ConfigurationError, Handlers, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.alerts import Alert, Alerts, CurrentAlert
from envoyou_core.alerts import evaluator as evaluator_module
from envoyou_core.alerts.evaluator import INTERVAL, LEASE, callback_names
from envoyou_core.alerts.states import MAX_TRIES
from envoyou_core.analytics.rollups import Measure, Period, RollUp, Tally, start_of
from envoyou_core.inbox import NewEvent, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import AlertFired, AlertNotSent, AlertResolved, AlertsNotEvaluated, WorkerStarted
from envoyou_core.settings import read_environment
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"
HIDDEN = "T00/B00/hidden-part"
WEEK = 7 * 86_400
STARTED = WorkerStarted("default", "thread", "memory:")


class Fleet:
    """Processes that share an inbox, and a clock that is set by hand."""

    def __init__(self, clock, inbox):
        self.clock = clock
        self.inbox = inbox
        self.seen: list[Alert] = []
        self.notices = []
        self.processes = []

    def process(self, **settings):
        webhooks = Webhooks(
            secret=SECRET,
            inbox=self.inbox,
            handoff="manual",
            retry=RetryPolicy(max_attempts=1),
            clock=self.clock,
            **settings,
        )
        webhooks.on("user.*", name="welcome")(lambda event: None)
        webhooks.on("api.*", name="fails")(lambda event: 1 / 0)
        webhooks.on_alert(self.seen.append)
        webhooks.subscribe(self.notices.append)
        self.processes.append(webhooks)
        return webhooks

    def receive(self, webhooks, type="user.created", number=1):
        for _ in range(number):
            delivery = sign_delivery(sample_event(type), secret=SECRET, timestamp=int(self.clock.now))
            webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))

    def evaluate(self, seconds=INTERVAL):
        """Let time pass, with ticks of all processes as often as the alerts are evaluated."""
        for _ in range(max(1, round(seconds / INTERVAL))):
            self.clock.advance(INTERVAL)
            for webhooks in self.processes:
                webhooks._recorder.tick()

    @property
    def heard(self):
        return [(alert.rule, alert.is_firing) for alert in self.seen]


@pytest.fixture
def fleet(clock):
    fleet = Fleet(clock, MemoryInbox(clock=clock))
    yield fleet
    for webhooks in fleet.processes:
        webhooks.stop()


def kinds(notices, *kinds):
    return [(type(notice).__name__, notice.rule) for notice in notices if isinstance(notice, kinds)]


def test_a_dead_event_fires_once_over_all_processes_and_resolves_once(fleet):
    one, other = fleet.process(), fleet.process()
    fleet.receive(one, "api.quota_exceeded")
    one.drain()
    fleet.evaluate(120)
    assert fleet.heard == [("dead_letters", True)]
    assert fleet.seen[0].text == "1 events are dead"
    one.inbox.requeue(status="dead")
    other.pause(type="api.*")
    fleet.evaluate(120)
    assert fleet.heard == [("dead_letters", True), ("dead_letters", False)]
    assert kinds(fleet.notices[:], AlertFired, AlertResolved) == [
        ("AlertFired", "dead_letters"),
        ("AlertResolved", "dead_letters"),
    ]


def test_an_alert_does_not_fire_again_after_a_restart(fleet):
    fleet.receive(fleet.process(), "api.quota_exceeded")
    fleet.processes[0].drain()
    fleet.evaluate()
    fleet.processes.clear()
    fleet.process()
    fleet.evaluate(120)
    assert fleet.heard == [("dead_letters", True)]


def test_a_process_that_only_accepts_alerts_when_all_workers_are_dead(fleet):
    worker, acceptor = fleet.process(), fleet.process()
    worker._presence.works()
    worker._engine.beat()
    fleet.evaluate()
    fleet.processes.remove(worker)
    for _ in range(5):
        fleet.receive(acceptor)
        fleet.evaluate()
    assert fleet.heard == [("no_worker", True)]
    worker._engine.beat()
    fleet.evaluate()
    assert fleet.heard[-1] == ("no_worker", False)


def test_failing_handlers_and_deliveries_that_cannot_be_stored_fire(fleet):
    webhooks = fleet.process(alerts=Alerts(thresholds={"dead_letters": None}))
    fleet.receive(webhooks, "api.quota_exceeded", number=5)
    fleet.receive(webhooks, number=5)
    webhooks.drain()
    add, webhooks.inbox.add = webhooks.inbox.add, lambda entry: 1 / 0
    fleet.receive(webhooks)
    webhooks.inbox.add = add
    fleet.evaluate()
    assert fleet.heard == [("error_rate", True), ("delivery_failures", True)]
    fleet.evaluate(12 * 60)
    assert fleet.heard[2:] == [("error_rate", False), ("delivery_failures", False)]


def test_an_event_that_is_due_for_long_fires(fleet):
    webhooks = fleet.process()
    fleet.receive(webhooks)
    fleet.evaluate(360)
    assert fleet.heard == [("processing_delay", True)]
    webhooks.drain()
    fleet.evaluate()
    assert fleet.heard[1:] == [("processing_delay", False)]


def test_silence_fires_after_many_usual_gaps(fleet):
    webhooks = fleet.process(alerts=Alerts(thresholds={"unusual_volume": False}))
    hours = range(168)
    fleet.inbox.add_rollups(
        [
            RollUp(Period.MINUTE, start_of(fleet.clock.now, 60) - 3600 * hour, Tally(Measure.ACCEPTED, number=1))
            for hour in hours
        ]
    )
    fleet.evaluate()
    for _ in range(12):
        assert fleet.heard == []
        fleet.clock.advance(3550)
        fleet.evaluate(60)
        if fleet.heard:
            break
    assert fleet.heard == [("silence", True)]
    assert "no delivery came for 10 times the usual gap" in fleet.seen[0].text
    fleet.receive(webhooks)
    webhooks.drain()
    fleet.evaluate()
    assert fleet.heard[1:] == [("silence", False)]


def test_an_unusual_volume_fires_until_it_is_usual(fleet):
    webhooks = fleet.process(alerts=Alerts(thresholds={"silence": False, "processing_delay": False}))
    for number in (25, 25, 200):
        fleet.receive(webhooks, number=number)
        webhooks.drain()
        if number == 200:
            fleet.evaluate()
        else:
            webhooks.store_counts()
            fleet.clock.advance(WEEK)
    assert fleet.heard == [("unusual_volume", True)]
    assert "a factor of 8.0" in fleet.seen[0].text
    # As many as in the same hour of the three weeks before, on average.
    fleet.clock.advance(WEEK - INTERVAL)
    fleet.receive(webhooks, number=83)
    webhooks.drain()
    fleet.evaluate()
    assert fleet.heard[1:] == [("unusual_volume", False)]


def test_a_spool_and_a_disk_are_alerts_of_their_machine(fleet, tmp_path, monkeypatch):
    webhooks = fleet.process(spool=f"sqlite:///{tmp_path / 'spool.db'}")
    webhooks.spool.open()
    webhooks.spool.add(NewEvent(sample_event())).result(20)
    monkeypatch.setattr(webhooks._relay, "move_due", lambda: None)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(evaluator_module.shutil, "disk_usage", lambda path: usage(100, 95, 5))
    fleet.evaluate(120)
    assert sorted(fleet.heard) == [("disk", True), ("spool_not_empty", True)]
    assert {alert.host for alert in fleet.seen} == {webhooks._evaluator._host}
    assert [(it.rule, it.is_firing, it.host) for it in webhooks.current_alerts()] == [
        (rule, True, webhooks._evaluator._host) for rule in ("spool_not_empty", "disk")
    ]
    monkeypatch.setattr(evaluator_module.shutil, "disk_usage", lambda path: (_ for _ in ()).throw(OSError))
    fleet.evaluate()
    assert len(fleet.heard) == 2
    monkeypatch.setattr(evaluator_module.shutil, "disk_usage", lambda path: usage(100, 5, 95))
    (claim,) = webhooks.spool.claim(1, 60.0)
    webhooks.spool.settle(claim, Settlement(Status.PROCESSED, 1))
    webhooks.spool.prune(timedelta(seconds=-1))
    fleet.evaluate()
    assert sorted(fleet.heard[2:]) == [("disk", False), ("spool_not_empty", False)]
    webhooks.spool.close()


def test_what_fires_is_listed_and_what_has_resolved_for_a_day(fleet):
    webhooks = fleet.process(alerts=Alerts(thresholds={"error_rate": False}))
    assert webhooks.current_alerts() == []
    fleet.receive(webhooks, "api.quota_exceeded", number=2)
    webhooks.drain()
    fleet.evaluate()
    fired_at = fleet.clock.moment()
    fleet.evaluate()
    expected = CurrentAlert(rule="dead_letters", is_firing=True, since=fired_at, value=2.0)
    assert webhooks.current_alerts() == [expected]
    webhooks.inbox.requeue(status="dead")
    webhooks.pause(type="api.*")
    fleet.evaluate()
    expected = CurrentAlert(rule="dead_letters", is_firing=False, since=fleet.clock.moment(), value=0.0)
    assert webhooks.current_alerts() == [expected]
    # Another evaluation leaves the time as it is.
    fleet.evaluate()
    assert webhooks.current_alerts()[0] == expected
    fleet.clock.advance(24 * 3600)
    assert expected not in webhooks.current_alerts()


def test_events_that_wait_for_a_handler_fire(fleet):
    fleet.process()
    stats = fleet.inbox.stats

    def waiting(**options):
        return replace(stats(**options), waiting={"gone": 2})

    fleet.inbox.stats = waiting
    fleet.evaluate(400)
    assert fleet.heard == [("waiting_for_handler", True)]
    fleet.inbox.stats = stats
    fleet.evaluate()
    assert fleet.heard[1:] == [("waiting_for_handler", False)]


def test_without_alerts_or_without_rules_nothing_is_evaluated(fleet):
    off = fleet.process(alerts=None)
    assert off._evaluator is None
    fleet.process(alerts=Alerts(thresholds=dict.fromkeys(evaluator_module.FLEET_RULES, False)))
    fleet.evaluate()
    assert fleet.inbox.alert_states() == {}


def test_an_inbox_that_is_down_is_tried_again(fleet):
    fleet.process()
    claim, fleet.inbox.claim_alerts = fleet.inbox.claim_alerts, lambda *_, **__: 1 / 0
    fleet.evaluate()
    assert any(isinstance(notice, AlertsNotEvaluated) for notice in fleet.notices)
    fleet.inbox.claim_alerts = claim
    fleet.evaluate()
    assert fleet.inbox.alert_states()


def test_a_process_that_lost_its_claim_sends_nothing(fleet):
    webhooks = fleet.process()
    fleet.receive(webhooks, "api.quota_exceeded")
    webhooks.drain()
    stats = fleet.inbox.stats

    def hang(**options):
        fleet.clock.advance(LEASE + 1)
        assert fleet.inbox.claim_alerts("another", LEASE) is not None
        return stats(**options)

    fleet.inbox.stats = hang
    fleet.evaluate()
    assert fleet.seen == []


# Notifications


def fails_times(times, seen):
    left = [times]

    def notify(alert):
        if left[0]:
            left[0] -= 1
            raise OSError("no network")
        seen.append(alert)

    return notify


@pytest.mark.parametrize(("times", "delivered"), [(2, 1), (MAX_TRIES, 0)])
def test_a_notification_that_fails_is_tried_again_a_few_times(fleet, times, delivered):
    webhooks, seen = fleet.process(), []
    webhooks.on_alert(fails_times(times, seen))
    fleet.receive(webhooks, "api.quota_exceeded")
    webhooks.drain()
    fleet.evaluate(INTERVAL * (MAX_TRIES + 3))
    assert len(seen) == delivered
    assert fleet.heard == [("dead_letters", True)]
    failures = [notice for notice in fleet.notices if isinstance(notice, AlertNotSent)]
    assert len(failures) == times
    assert (failures[-1].retry_in is None) == (times == MAX_TRIES)
    assert failures[0].detail == "OSError: no network"


def test_a_notification_for_a_callback_that_is_gone_is_given_up(fleet):
    webhooks = fleet.process()
    fleet.receive(webhooks, "api.quota_exceeded")
    webhooks.drain()
    webhooks.on_alert(fails_times(100, []))
    fleet.evaluate()
    fleet.processes.clear()
    fleet.process()
    fleet.evaluate(INTERVAL * MAX_TRIES)
    last = [notice for notice in fleet.notices if isinstance(notice, AlertNotSent)][-1]
    assert (last.detail, last.retry_in) == ("this process has no such notifier", None)


def test_callbacks_have_the_same_names_in_every_process():
    def page(alert):
        pass

    names = list(callback_names([page, page, print]))
    assert names[1:] == [names[0] + ":2", "on_alert:print"]
    assert list(callback_names([fails_times.__class__])) == ["on_alert:function"]


def test_an_async_callback_is_refused():
    async def page(alert):
        pass

    with pytest.raises(ConfigurationError, match="must be a sync function"):
        Handlers().on_alert(page)


def test_alerts_are_logged(fleet, caplog):
    webhooks = fleet.process()
    fleet.receive(webhooks, "api.quota_exceeded")
    webhooks.drain()
    caplog.clear()
    webhooks.on_alert(fails_times(1, []))
    fleet.evaluate()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert lines[0] == "alert dead_letters of default fired: 1 events are dead"
    assert "was not sent to on_alert:" in lines[1]
    assert lines[1].endswith(", retrying in 30 s: OSError: no network")


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def slack(status=200, **headers):
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    with serving(HTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/services/{HIDDEN}", posted


def die(fleet, **options):
    webhooks = fleet.process(alerts=Alerts(**options))
    fleet.receive(webhooks, "api.quota_exceeded")
    webhooks.drain()
    return webhooks


def test_alerts_are_posted_to_a_webhook_in_the_form_of_slack(fleet):
    with slack() as (url, posted):
        webhooks = die(fleet, webhook_url=url)
        fleet.evaluate(120)
        webhooks.pause(type="api.*")
        webhooks.inbox.requeue(status="dead")
        fleet.evaluate()
    assert [(path, list(message)) for path, message in posted] == [(f"/services/{HIDDEN}", ["text"])] * 2
    fired, resolved = (message["text"] for _, message in posted)
    assert fired == ":rotating_light: *EnvoyOU webhooks (default): dead_letters FIRING*\n1 events are dead"
    assert resolved.startswith(":white_check_mark: *EnvoyOU webhooks (default): dead_letters resolved*")


@pytest.mark.parametrize(("status", "headers"), [(500, {}), (302, {"Location": "http://127.0.0.1:9/"})])
def test_a_webhook_that_fails_is_tried_again_and_its_url_is_shown_nowhere(fleet, caplog, status, headers):
    with slack(status, **headers) as (url, posted):
        webhooks = die(fleet, webhook_url=url)
        fleet.evaluate(60)
    assert len(posted) == 2
    assert f"the webhook of the alerts answered {status}" in caplog.text
    fleet.evaluate()
    assert "ConnectionRefusedError" in caplog.text
    shown = [caplog.text, str(fleet.notices), repr(webhooks._settings), fleet.inbox.alert_states()]
    assert all(HIDDEN not in text for text in shown)


class Smtp(socketserver.StreamRequestHandler):
    def handle(self):
        server = self.server
        self.say("220 test")
        while line := self.rfile.readline().decode(errors="replace").strip():
            server.said.append(line)
            command = line.split()[0].upper()
            if command == "EHLO":
                self.say("250-test" if server.extensions else "250 test")
                for number, extension in enumerate(server.extensions, 1):
                    self.say(f"250{' ' if number == len(server.extensions) else '-'}{extension}")
            elif command == "DATA":
                self.say("354 go on")
                lines = []
                while (part := self.rfile.readline().decode()) != ".\r\n":
                    lines.append(part)
                server.messages.append("".join(lines))
                self.say("250 accepted")
            elif command == "AUTH":
                self.say("235 welcome")
            elif command == "STARTTLS":
                self.say("220 go on")
            elif command == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def smtp(*extensions):
    server = socketserver.TCPServer(("127.0.0.1", 0), Smtp)
    server.extensions, server.said, server.messages = extensions, [], []
    with serving(server) as port:
        yield port, server


def test_alerts_are_sent_by_e_mail(fleet):
    with smtp() as (port, server):
        die(fleet, smtp_url=f"smtp://127.0.0.1:{port}", email_to=["ops@example.com", "dev@example.com"])
        fleet.evaluate()
    (message,) = server.messages
    assert "Subject: EnvoyOU webhooks (default): dead_letters FIRING" in message
    assert "From: ops@example.com" in message
    assert "To: ops@example.com, dev@example.com" in message
    assert "1 events are dead" in message


def test_a_password_is_not_sent_without_tls(fleet, caplog):
    with smtp("AUTH PLAIN") as (port, server):
        die(fleet, smtp_url=f"smtp://ops:hidden-part@127.0.0.1:{port}", email_to=["ops@example.com"])
        fleet.evaluate()
    assert server.messages == []
    assert not any(line.startswith("AUTH") for line in server.said)
    assert "the SMTP server offers no TLS" in caplog.text
    assert "hidden-part" not in caplog.text


def test_a_user_without_a_password_may_log_in_to_a_server_without_tls(fleet):
    with smtp("AUTH PLAIN") as (port, server):
        die(fleet, smtp_url=f"smtp://ops@127.0.0.1:{port}", email_to=["a@example.com"], email_from="b@example.com")
        fleet.evaluate()
    assert "From: b@example.com" in server.messages[0]
    assert any(line.startswith("AUTH PLAIN") for line in server.said)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_tls_is_used_where_there_is_any(fleet, scheme):
    # The server cannot speak it, which shows that the client begins it.
    with smtp("STARTTLS") as (port, server):
        die(fleet, smtp_url=f"{scheme}://127.0.0.1:{port}", email_to=["ops@example.com"])
        fleet.evaluate()
    assert server.messages == []
    assert any(isinstance(notice, AlertNotSent) for notice in fleet.notices)
    assert not any(line.startswith("mail FROM") for line in server.said)
    assert ("STARTTLS" in server.said) == (scheme == "smtp")


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": {"dead_leters": 1}}, "unknown alert 'dead_leters', expected one of dead_letters"),
        ({"thresholds": {"disk": "full"}}, "the threshold of alert 'disk' must be a number or false"),
        ({"thresholds": {"disk": True}}, "the threshold of alert 'disk' must be a number or false"),
        ({"thresholds": {"disk": -1}}, "must be at least 0, got -1"),
        ({"thresholds": {"disk": float("nan")}}, "must be at least 0, got nan"),
        ({"webhook_url": f"ftp://{HIDDEN}"}, "webhook_url of alerts must be an http or https URL"),
        ({"webhook_url": f"http://[{HIDDEN}"}, "webhook_url of alerts must be an http or https URL"),
        ({"smtp_url": f"http://{HIDDEN}", "email_to": ["a@example.com"]}, "smtp_url of alerts must be a URL such as"),
        ({"smtp_url": f"smtp://host:{HIDDEN}", "email_to": ["a@example.com"]}, "smtp_url of alerts must be a URL"),
        ({"email_to": ["a@example.com"]}, "e-mail alerts need both email_to and smtp_url"),
        ({"smtp_url": "smtp://host"}, "e-mail alerts need both email_to and smtp_url"),
        ({"email_to": "a@example.com"}, "email_to of alerts must be a list of addresses"),
    ],
)
def test_a_wrong_setting_is_an_error_at_the_start(options, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        Alerts(**options)
    assert HIDDEN not in str(raised.value)


def test_alerts_are_configured_from_the_environment():
    keywords = read_environment(
        {
            "ENVOYOU_ALERTS_THRESHOLDS": '{"error_rate": 0.5, "silence": false}',
            "ENVOYOU_ALERTS_WEBHOOK_URL": "https://hooks.example.com/secret",
            "ENVOYOU_ALERTS_EMAIL_TO": "a@example.com, b@example.com",
            "ENVOYOU_ALERTS_EMAIL_FROM": "c@example.com",
            "ENVOYOU_ALERTS_SMTP_URL": "smtps://user:password@mail.example.com",
            "ENVOYOU_ANALYTICS": "on",
        }
    )
    alerts = keywords["alerts"]
    assert keywords["analytics"] is True
    assert alerts.thresholds == {"error_rate": 0.5, "silence": False}
    assert list(alerts.notifiers()) == ["email", "webhook_url"]
    assert (alerts.email_to, alerts.email_from) == (("a@example.com", "b@example.com"), "c@example.com")
    assert "secret" not in repr(alerts)
    assert "password" not in repr(alerts)
    assert read_environment({"ENVOYOU_ALERTS": "off"}) == {"alerts": None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ALERTS", "on", "ALERTS must be an Alerts or 'off'"),
        ("ALERTS_THRESHOLDS", "{", "ALERTS_THRESHOLDS must be a JSON object of alerts and thresholds"),
        ("ALERTS_THRESHOLDS", "[]", "ALERTS_THRESHOLDS must be a mapping of alerts and thresholds"),
    ],
)
def test_a_wrong_variable_is_named(name, value, message):
    with pytest.raises(ConfigurationError, match=message):
        read_environment({f"ENVOYOU_{name}": value})


def test_alerts_must_be_alerts():
    with pytest.raises(ConfigurationError, match="alerts must be an Alerts or None, got dict"):
        Webhooks(secret=SECRET, inbox="memory:", alerts={})
