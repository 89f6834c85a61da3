"""The settings of custom headers, and what becomes of the headers that are kept."""

import sqlite3
from datetime import timedelta

import pytest

from envoyou_core import ConfigurationError, EndpointHeaderError, WebhookRequest, Webhooks
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import Rejected
from envoyou_core.redaction import redact
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"
TOKEN = "hush-hush-of-this-endpoint"


def make(**settings):
    return Webhooks(**{"secret": SECRET, "inbox": "memory:", "handoff": "manual", **settings})


def request(event=None, drop=(), **headers):
    delivery = sign_delivery(event or sample_event(id="evt_1"), secret=SECRET)
    sent = {name: value for name, value in delivery.headers.items() if name not in drop}
    custom = {name.replace("_", "-"): value for name, value in headers.items()}
    return WebhookRequest.from_http("POST", sent | custom, delivery.body)


def test_the_reason_of_a_refusal_names_the_header_and_no_value():
    webhooks, seen = make(endpoint_headers={"X-Token": TOKEN}), []
    webhooks.subscribe(seen.append)
    assert webhooks.receive(request(X_Token="hush")).status == 401
    [rejected] = [notice for notice in seen if isinstance(notice, Rejected)]
    assert (rejected.reason, "X-Token" in rejected.detail, "hush" in repr(rejected)) == ("endpoint_header", True, False)
    with pytest.raises(EndpointHeaderError):
        webhooks.verify(request())
    assert webhooks.verify(request(x_token=TOKEN)).id == "evt_1"
    assert TOKEN not in repr(webhooks._reception) + repr(request(X_Token=TOKEN)) + redact(f"got {TOKEN}")


def test_the_signature_is_checked_first():
    webhooks, seen = make(endpoint_headers={"X-Token": TOKEN}), []
    webhooks.subscribe(seen.append)
    webhooks.receive(request(**{"X-EnvoyOU-Signature": "v1,0"}))
    assert [notice.reason for notice in seen if isinstance(notice, Rejected)] == ["signature_mismatch"]


@pytest.mark.parametrize("token", ["old-value", "new-value"])
def test_each_of_several_values_is_accepted(token):
    webhooks = make(endpoint_headers={"X-Token": ["new-value", "old-value"], "X-Other": "o"})
    assert webhooks.receive(request(X_Token=token, X_Other="o")).status == 200
    assert webhooks.receive(request(X_Token=token)).status == 401


def test_a_handler_sees_the_kept_headers():
    webhooks, seen = make(kept_headers=["X-Region", "X-Long", "X-Control"]), []
    webhooks.on("*")(lambda event, delivery: seen.append((delivery.headers, repr(delivery))))
    webhooks.receive(request(X_Region="eu-1", X_Long="x" * 1025, X_Control="a\x1bb", X_Other="o"))
    webhooks.drain()
    [(headers, shown)] = seen
    assert headers == {"X-Region": "eu-1"}
    assert "eu-1" not in shown


def test_they_are_deleted_with_the_payload(tmp_path):
    webhooks = make(inbox=f"sqlite:///{tmp_path}/inbox.db", kept_headers=["X-Region"])
    webhooks.on("*")(lambda event: None)
    webhooks.receive(request(X_Region="eu-1"))
    with sqlite3.connect(tmp_path / "inbox.db") as database:
        stored = "SELECT headers FROM envoyou_inbox"
        assert database.execute(stored).fetchone() == ('{"X-Region": "eu-1"}',)
        webhooks.drain()
        assert webhooks.inbox.scrub(timedelta(0)) == 1
        assert database.execute(stored).fetchone() == (None,)
    database.close()
    webhooks.inbox.close()


def test_the_spool_keeps_them_too(tmp_path):
    class Down(MemoryInbox):
        is_down = True

        def add(self, entry):
            if self.is_down:
                raise OSError("the inbox is down")
            return super().add(entry)

    inbox, seen = Down(), []
    webhooks = make(inbox=inbox, spool=f"sqlite:///{tmp_path}/spool.db", kept_headers="X-Region")
    webhooks.on("*")(lambda event, delivery: seen.append(delivery.headers))
    assert webhooks.receive(request(X_Region="eu-1")).status == 200
    inbox.is_down = False
    webhooks.drain(until_idle=True, within=20)
    assert seen == [{"X-Region": "eu-1"}]
    webhooks.spool.close()


def test_a_rejected_delivery_is_retried_without_its_custom_headers():
    inbox = MemoryInbox()
    webhooks = make(inbox=inbox, endpoint_headers={"X-Token": TOKEN})
    assert webhooks.receive(request(X_Token=TOKEN, drop=["X-EnvoyOU-Event-Type"])).status == 400
    [kept] = inbox.list_rejected()
    relaxed = make(inbox=inbox, endpoint_headers={"X-Token": TOKEN}, required_headers=())
    assert relaxed.retry_rejected(kept.key).id == "evt_1"


def test_the_environment_has_them():
    environ = {
        "ENVOYOU_WEBHOOK_SECRET": SECRET,
        "ENVOYOU_INBOX": "memory:",
        "ENVOYOU_HANDOFF": "manual",
        "ENVOYOU_ENDPOINT_HEADERS": f'{{"X-Token": "{TOKEN}"}}',
        "ENVOYOU_KEPT_HEADERS": "X-Region, X-Zone",
    }
    webhooks = Webhooks.from_env(environ)
    assert webhooks._reception.endpoint_headers.kept == ("X-Region", "X-Zone")
    assert webhooks.receive(request(X_Token=TOKEN)).status == 200
    for text in ("hush", '["hush"]', '{"X-Token": hush}'):
        with pytest.raises(ConfigurationError, match="ENVOYOU_ENDPOINT_HEADERS must be a") as raised:
            Webhooks.from_env({**environ, "ENVOYOU_ENDPOINT_HEADERS": text})
        assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"endpoint_headers": ["X-Token"]}, "must be a mapping"),
        ({"endpoint_headers": {"X Token": "hush"}}, "names of headers"),
        ({"endpoint_headers": {"X-EnvoyOU-Nonce": "hush"}}, "different in each delivery"),
        ({"endpoint_headers": {"X-Token": ""}}, "must be text"),
        ({"endpoint_headers": {"X-Token": []}}, "must be text"),
        ({"endpoint_headers": {"X-Token": 5}}, "must be text"),
        ({"endpoint_headers": {"X-Token": "hush\n"}}, "ends with"),
        ({"endpoint_headers": {"X-Token": "hüsh"}}, "ASCII"),
        ({"kept_headers": [5]}, "names of headers"),
        ({"kept_headers": ["Authorization"]}, "a credential"),
        ({"kept_headers": ["x-envoyou-signature"]}, "a credential"),
        ({"kept_headers": ["x-token"], "endpoint_headers": {"X-Token": "hush"}}, "whose value is secret"),
        ({"kept_headers": [f"X-{number}" for number in range(21)]}, "at most 20"),
    ],
)
def test_a_wrong_setting_is_an_error_without_the_value(settings, problem):
    with pytest.raises(ConfigurationError, match=problem) as raised:
        make(**settings)
    assert "hush" not in str(raised.value)
