"""The setting `ENVOYOU`."""

import asyncio
import subprocess
import sys

import pytest
from asgiref.sync import sync_to_async
from django.test import override_settings
from prometheus_client import CollectorRegistry

from envoyou_core import ConfigurationError, RetryPolicy, Tenant, WebhookRequest, Webhooks
from envoyou_core.observability import prometheus
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import conf, webhooks
from tests.django.conftest import SECRET


def with_settings(**settings):
    return override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, **settings})


def post(client, event, secret):
    delivery = sign_delivery(event, secret=secret)
    return client.post(
        "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
    ).status_code


def secrets_by_endpoint(webhook_id):
    return {"wh_acme": "whsec_of_acme"}.get(webhook_id)


async def secrets_later(webhook_id):
    return await sync_to_async(secrets_by_endpoint)(webhook_id)


class Vault:
    secret = "whsec_in_a_vault"


def test_names_are_the_keywords_in_upper_case():
    with with_settings(TOLERANCE="60", RETRY_MAX_ATTEMPTS=5, NAME="billing", MAX_BODY_SIZE=100):
        assert conf.webhooks_keywords() == {
            "secret": SECRET,
            "tolerance": 60.0,
            "retry": RetryPolicy(max_attempts=5),
            "name": "billing",
            "max_body_size": 100,
        }
        assert (webhooks.name, webhooks.inbox.name, webhooks.max_body_size) == ("billing", "billing", 100)


def test_what_the_setting_does_not_name_comes_from_the_environment(monkeypatch):
    for name, value in {"WEBHOOK_SECRET": "whsec_env", "TOLERANCE": "60", "LEASE": "5", "INBOX": "memory:"}.items():
        monkeypatch.setenv(f"ENVOYOU_{name}", value)
    with override_settings(ENVOYOU={"LEASE": 7}):
        assert conf.webhooks_keywords() == {"secret": "whsec_env", "tolerance": 60.0, "lease": 7.0}
    with with_settings():
        assert conf.webhooks_keywords()["secret"] == SECRET


def test_settings_are_parsed_once_until_they_change(monkeypatch):
    parsed = []

    def read_settings(*arguments, **options):
        parsed.append(arguments)
        return read(*arguments, **options)

    read = conf.read_settings
    monkeypatch.setattr(conf, "read_settings", read_settings)
    with with_settings(CLOCK=lambda: 5.0):
        assert [conf.clock()(), conf.clock()()] == [5.0, 5.0]
        assert not conf.is_manual()
        assert len(parsed) == 1
        with with_settings(CLOCK=lambda: 6.0):
            assert conf.clock()() == 6.0
        assert conf.clock()() == 5.0
    assert len(parsed) == 3


def test_an_unknown_name_is_refused_and_the_closest_one_suggested():
    with with_settings(TOLERENCE=60), pytest.raises(ConfigurationError, match="did you mean 'TOLERANCE'"):
        webhooks.max_body_size  # noqa: B018
    with with_settings(HANDLER_MODULE="hooks"), pytest.raises(ConfigurationError, match="'HANDLERS_MODULE'"):
        conf.handlers_module()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the webhook secret is missing"),
        ({"WEBHOOK_SECRET": None}, "the webhook secret is missing"),
        ({"WEBHOOK_SECRET": ""}, "empty"),
        ({"WEBHOOK_SECRET": []}, "secret"),
        ({"WEBHOOK_SECRET": SECRET, "INBOX": "sqlite:///x.db"}, "ProcessedEvent"),
        ({"WEBHOOK_SECRET": SECRET, "HANDLERS_MODULE": "not a module"}, "HANDLERS_MODULE"),
        ([("WEBHOOK_SECRET", SECRET)], "must be a dict, got list"),
        ({"WEBHOOK_SECRET": SECRET, "NAME": "n" * 65}, "64 characters"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    def use():
        conf.handlers_module()
        return webhooks.max_body_size

    with override_settings(ENVOYOU=settings), pytest.raises(ConfigurationError, match=message):
        use()


@pytest.mark.django_db
def test_an_override_takes_effect_and_ends(client):
    assert post(client, sample_event(), SECRET) == 200
    with with_settings(WEBHOOK_SECRET="whsec_other"):
        assert post(client, sample_event(), SECRET) == 401
        assert post(client, sample_event(), "whsec_other") == 200
    assert post(client, sample_event(), SECRET) == 200


@pytest.mark.django_db
def test_several_secrets(client):
    with with_settings(WEBHOOK_SECRET=["whsec_new", "whsec_old"]):
        assert post(client, sample_event(), "whsec_new") == 200
        assert post(client, sample_event(), "whsec_old") == 200
        assert post(client, sample_event(), SECRET) == 401


@pytest.mark.django_db
def test_a_dotted_path_to_a_callable(client):
    with with_settings(WEBHOOK_SECRET=f"{__name__}.secrets_by_endpoint"):
        assert post(client, sample_event(webhook_id="wh_acme"), "whsec_of_acme") == 200
        assert post(client, sample_event(webhook_id="wh_foreign"), "whsec_of_acme") == 401


@pytest.mark.parametrize(
    "path", ["tests.django.nowhere.secrets", f"{__name__}.nothing", f"{__name__}.Vault.secret", "whsec_q.w"]
)
def test_a_path_that_cannot_be_imported_is_not_used_as_the_secret(path):
    with with_settings(WEBHOOK_SECRET=path), pytest.raises(ConfigurationError) as caught:
        webhooks.max_body_size  # noqa: B018
    # The value may be a secret.
    assert path not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_path_to_an_object_that_is_not_callable_is_refused():
    with with_settings(WEBHOOK_SECRET=f"{__name__}.SECRET"), pytest.raises(ConfigurationError, match="not that of a"):
        webhooks.max_body_size  # noqa: B018


@pytest.mark.django_db
def test_a_secret_that_looks_like_a_path_works_in_a_list(client):
    with with_settings(WEBHOOK_SECRET=["whsec_q.w"]):
        assert post(client, sample_event(), "whsec_q.w") == 200


@pytest.mark.django_db
def test_the_clock_is_a_setting(client, clock):
    with with_settings(CLOCK=clock, TOLERANCE=5):
        old = sign_delivery(sample_event(id="evt_old"), secret=SECRET, timestamp=int(clock()) - 4)
        path = "/webhooks/envoyou"
        first = client.post(path, old.body, content_type="application/json", headers=old.headers)
        assert first.status_code == 200
        assert webhooks.inbox.get("evt_old").received_at == clock.moment()
        clock.advance(2)
        assert client.post(path, old.body, content_type="application/json", headers=old.headers).status_code == 401


def test_import_and_registration_require_no_settings():
    code = """
import inspect
from django.conf import settings
from envoyou_core import Webhooks
import envoyou_django
from envoyou_django import webhooks

@webhooks.on("user.created")
def welcome(event): ...

inspect.getmembers(envoyou_django, inspect.isclass)
assert not settings.configured
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def hint(event_id): ...


@pytest.mark.parametrize(
    ("handoff", "core", "queue"),
    [
        ("auto", "auto", None),
        ("thread", "auto", None),
        ("manual", "manual", None),
        ("django_tasks", "manual", conf.TaskQueue.DJANGO_TASKS),
        ("celery", "manual", conf.TaskQueue.CELERY),
        (hint, hint, None),
        (f"{__name__}.hint", hint, None),
    ],
)
def test_handoff_values(handoff, core, queue):
    with with_settings(HANDOFF=handoff):
        assert conf.webhooks_keywords()["handoff"] == core
        assert conf.task_queue() is queue


@pytest.mark.parametrize(
    ("handoff", "words"),
    [
        ("cellery", "must be one of 'auto', 'thread', 'manual', 'django_tasks', 'celery', a function"),
        (f"{__name__}.SECRET", "must be one of"),
        (f"{__name__}.nothing", "cannot be imported"),
        (5, "HANDOFF"),
    ],
)
def test_an_invalid_handoff_is_refused(handoff, words):
    with with_settings(HANDOFF=handoff), pytest.raises(ConfigurationError, match=words):
        webhooks.max_body_size  # noqa: B018


@pytest.mark.parametrize("name", ["TASKS_BACKEND", "TASKS_QUEUE"])
def test_backend_and_queue_names_must_be_text(name):
    with with_settings(**{name: 5}), pytest.raises(ConfigurationError, match=f'"{name}"'):
        conf.tasks_backend(), conf.tasks_queue_name()


@pytest.mark.parametrize(
    ("secret", "newest"),
    [
        ("whsec_1", "whsec_1"),
        (["whsec_new", "whsec_old"], "whsec_new"),
        (b"whsec_1", b"whsec_1"),
        (secrets_by_endpoint, "whsec_of_acme"),
        (lambda webhook_id: Tenant("acme", ["whsec_new", "whsec_old"]), "whsec_new"),
        (f"{__name__}.secrets_by_endpoint", "whsec_of_acme"),
        ({"wh_acme": ["whsec_new", "whsec_old"], "wh_other": "whsec_other"}, "whsec_new"),
        (secrets_later, "whsec_of_acme"),
    ],
)
def test_signing_secret_is_the_newest(secret, newest):
    with with_settings(WEBHOOK_SECRET=secret):
        assert conf.signing_secret("wh_acme") == newest


def test_signing_secret_of_an_unknown_endpoint():
    with with_settings(WEBHOOK_SECRET=secrets_by_endpoint), pytest.raises(ConfigurationError, match="'wh_foreign'"):
        conf.signing_secret("wh_foreign")


@pytest.mark.django_db
def test_the_proxy_has_all_public_attributes():
    assert webhooks.name == "default"
    missing = [name for name in dir(Webhooks) if not name.startswith("_") and not hasattr(webhooks, name)]
    assert missing == []


@pytest.mark.django_db
def test_secrets_by_webhook_id(client):
    with with_settings(WEBHOOK_SECRET={"wh_acme": "whsec_of_acme", "wh_globex": ["whsec_new", "whsec_old"]}):
        assert post(client, sample_event(id="evt_1", webhook_id="wh_acme"), "whsec_of_acme") == 200
        assert post(client, sample_event(id="evt_1", webhook_id="wh_globex"), "whsec_old") == 200
        assert post(client, sample_event(webhook_id="wh_globex"), "whsec_of_acme") == 401
        assert post(client, sample_event(webhook_id="wh_other"), "whsec_of_acme") == 401
        assert {record.tenant for record in webhooks.inbox.list()} == {"wh_acme", "wh_globex"}
        assert conf.written_secrets() == ("whsec_of_acme", "whsec_new", "whsec_old")


@pytest.mark.django_db
def test_secrets_in_a_file(client, tmp_path):
    file = tmp_path / "secrets"
    # In a file, a value that looks like a dotted path is a secret.
    file.write_text("whsec.new\nwhsec_old\n")
    with override_settings(ENVOYOU={"WEBHOOK_SECRET_FILE": file}):
        for secret, status in (("whsec.new", 200), ("whsec_old", 200), (SECRET, 401)):
            assert post(client, sample_event(), secret) == status
        assert conf.signing_secret("wh_acme") == "whsec.new"
        file.unlink()
        # The file is read only for the secret.
        assert conf.handlers_module() == "webhooks"
    with with_settings(WEBHOOK_SECRET_FILE=file), pytest.raises(ConfigurationError, match="not both"):
        conf.webhooks_keywords()


@pytest.mark.django_db
def test_an_async_secret_callable_under_wsgi(client):
    with with_settings(WEBHOOK_SECRET=f"{__name__}.secrets_later"):
        assert post(client, sample_event(webhook_id="wh_acme"), "whsec_of_acme") == 200
        assert post(client, sample_event(webhook_id="wh_acme"), SECRET) == 401


@pytest.mark.django_db(transaction=True)
def test_an_async_secret_callable_is_awaited_on_the_loop_of_an_async_request():
    loops = []

    async def secret_of(webhook_id):
        loops.append(asyncio.get_running_loop())
        return "whsec_of_acme"

    async def serve():
        delivery = sign_delivery(sample_event(), secret="whsec_of_acme")
        request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        assert (await webhooks.areceive(request)).status == 200
        assert loops == [asyncio.get_running_loop()]

    with with_settings(WEBHOOK_SECRET=secret_of):
        asyncio.run(serve())


@pytest.mark.django_db
def test_the_setting_instruments_the_webhooks_of_the_project(client, monkeypatch):
    registry = CollectorRegistry()
    monkeypatch.setattr(prometheus, "REGISTRY", registry)
    with with_settings(INSTRUMENT=["prometheus"]):
        assert post(client, sample_event(), SECRET) == 200
        prometheus.instrument(webhooks)
        assert post(client, sample_event(), SECRET) == 200
    accepted = {"outcome": "accepted", "reason": ""}
    assert registry.get_sample_value("envoyou_webhook_deliveries_total", accepted) == 2
