"""`envoyou doctor` finds each fault of an installation, planted for real."""

import importlib
import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from envoyou_core import PermanentError, WebhookRequest, Webhooks
from envoyou_core.cli.command_line import app
from envoyou_core.cli.doctor import _row
from envoyou_core.doctor.clock import clock_finding
from envoyou_core.doctor.files import check_disk
from envoyou_core.doctor.findings import Finding, Level
from envoyou_core.doctor.servers import RULES, setting_findings
from envoyou_core.doctor.work import process_findings
from envoyou_core.inbox import open_inbox
from envoyou_core.inbox.processes import ProcessKind, _this_process
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.wsgi import webhooks_entry
from tests.core.test_schema_upgrades import SCHEMAS
from tests.core.test_verify_command import not_found
from tests.core.web_servers import answering, serving
from tests.inbox.acts import add

SECRET = "whsec_of_the_doctor_tests_1234"
DEAD_PORT = "http://127.0.0.1:9"

HOOKS = """
from envoyou_core import Webhooks

webhooks = Webhooks.from_env(handoff="manual")


@webhooks.on("user.created")
def welcome(event): ...
"""


@pytest.fixture
def hooks(tmp_path, monkeypatch):
    """The name of an application's module, whose inbox is a SQLite file that exists."""
    for name in [name for name in os.environ if name.startswith("ENVOYOU_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)
    name = f"hooks_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(HOOKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("ENVOYOU_INBOX", "sqlite:///inbox.db")
    monkeypatch.setenv("ENVOYOU_BASE_URL", DEAD_PORT)
    with closing(open_inbox("sqlite:///inbox.db")) as inbox:
        inbox.open()
    yield name
    module = sys.modules.pop(name, None)
    if module is not None:
        module.webhooks.inbox.close()


@pytest.fixture
def examine(hooks):
    """Run the command; returns the exit code, and the findings that are not ok as (check, level, text, advice)."""

    def examine(*arguments, named=True, keep=()):
        application = ["--app", hooks] if named else []
        result = CliRunner().invoke(app, [*application, "doctor", "--json", *arguments])
        assert result.stdout, result.output
        document = json.loads(result.stdout)
        found = [tuple(each.values()) for each in document["findings"]]
        assert result.exit_code == (0 if document["ok"] else 1)
        assert document["problems"] == sum(level == "problem" for _, level, _, _ in found)
        assert document["warnings"] == sum(level == "warning" for _, level, _, _ in found)
        # The clock cannot be compared with that of a platform that does not run.
        return result.exit_code, [it for it in found if it[0] in keep or (it[1] != "ok" and it[0] != "clock")]

    return examine


def only(found, check):
    [finding] = [each for each in found if each[0] == check]
    return finding[1:]


def beat(webhooks, kind=ProcessKind.WORKER):
    webhooks.inbox.beat(replace(webhooks._presence.process, kind=kind))


def imported(hooks):
    return importlib.import_module(hooks).webhooks


def test_nothing_is_found_if_nothing_is_wrong(examine, hooks):
    beat(imported(hooks))
    assert examine() == (0, [])
    [(_, _, text, _)] = examine(keep=["workers"])[1]
    assert text.startswith("worker ")
    assert text.endswith("handles welcome")


# Secrets


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("whsec_your_webhook_secret_key", "the secret is the placeholder of the documentation"),
        ("whsec_short", "the secret is easy to guess"),
        (f'"{SECRET}"', "the settings cannot be used: the webhook secret begins with U+0022 (quotation mark)"),
        (f"{SECRET}\n", "ends with U+000A (line feed)"),
        (None, "the settings cannot be used: the webhook secret is missing: set the environment variable ENVOYOU_"),
    ],
)
def test_a_secret_that_must_not_be_used(examine, monkeypatch, secret, text):
    if secret is None:
        monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET")
    else:
        monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", secret)
    code, found = examine()
    level, found_text, advice = only(found, "secret")
    assert (code, level) == (1, "problem")
    assert text in found_text
    assert advice
    assert secret is None or secret.strip('\n"') not in json.dumps(found)


def test_several_secrets_are_a_rotation_that_should_end(examine, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", f"{SECRET},whsec_of_the_year_before")
    level, text, _ = only(examine()[1], "secret")
    assert (level, text) == ("warning", "2 secrets are accepted")


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ({"wh_1": "whsec_of_the_first_endpoint", "wh_2": "whsec_of_the_second_endpoint"}, "the secrets of 2 endpoints"),
        (lambda webhook_id: SECRET, "secrets are looked up by a function"),
    ],
)
def test_secrets_by_endpoint(examine, hooks, secret, text):
    imported(hooks)._secret = secret
    [(_, level, found, _)] = [it for it in examine(keep=["secret"])[1] if it[0] == "secret"]
    assert level == "ok"
    assert text in found


def test_a_secret_file_that_others_can_read(examine, monkeypatch, tmp_path):
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o644)
    monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET")
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET_FILE", str(file))
    level, text, advice = only(examine()[1], "secret")
    assert level == "problem"
    assert "can be read or written by every user (0644)" in text
    assert advice == f"chmod o= {file}"


# The application


def test_an_application_that_cannot_be_imported(hooks, tmp_path):
    (tmp_path / "broken.py").write_text("import hooks_that_do_not_exist")
    result = CliRunner().invoke(app, ["--app", "broken", "doctor"])
    assert result.exit_code == 1
    assert "ModuleNotFoundError" in result.stderr
    assert result.stdout.splitlines()[0].split()[:2] == ["problem", "application"]
    assert "; to do: correct the setting" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 problem, no warnings"


def test_without_an_application_the_environment_is_checked(examine):
    code, found = examine(named=False)
    assert (code, {check for check, *_ in found}) == (0, {"application", "handlers", "workers"})
    assert only(found, "handlers")[1].startswith("no handler is registered")


# The clock


def platform(skew, status=404):
    return answering(status, lambda: {"Date": formatdate(datetime.now(UTC).timestamp() + skew, usegmt=True)})


@pytest.mark.parametrize(
    ("skew", "level", "text"),
    [
        (0, "ok", "the clock agrees"),
        (-60, "warning", "the clock is 60 s ahead of"),
        (600, "problem", "the clock is 600 s behind"),
    ],
)
def test_the_clock_is_compared_with_that_of_the_platform(examine, skew, level, text):
    with platform(skew, status=200 if skew else 404) as url:
        found = only(examine("--base-url", url, keep=["clock"])[1], "clock")
    assert found[0] == level
    # A busy machine may take a second more.
    assert text.rpartition("0 s")[0] in found[1] or text in found[1]


def test_a_platform_that_cannot_be_reached_is_a_warning(examine):
    level, text, _ = only(examine(keep=["clock"])[1], "clock")
    assert level == "warning"
    assert f"{DEAD_PORT} cannot be reached" in text
    with answering(404) as url:
        assert "sends no valid Date header" in only(examine("--base-url", url, keep=["clock"])[1], "clock")[1]


def test_a_small_difference_is_the_time_of_the_answer():
    finding = clock_finding(formatdate(1000, usegmt=True), 1004.0, tolerance=300, source="it")
    assert finding.level is Level.OK


# The inbox


def test_a_missing_inbox_is_not_created(examine, tmp_path, monkeypatch):
    monkeypatch.setenv("ENVOYOU_INBOX", f"sqlite:///{tmp_path}/another.db")
    code, found = examine()
    level, text, advice = only(found, "inbox")
    assert (code, level) == (1, "problem")
    assert "no inbox exists" in text
    assert "check the path" in advice
    assert not (tmp_path / "another.db").exists()


def test_an_inbox_in_memory(examine, monkeypatch):
    monkeypatch.setenv("ENVOYOU_INBOX", "memory:")
    assert "a restart loses every event" in only(examine()[1], "inbox")[1]


def test_a_file_that_cannot_be_written(examine, hooks, tmp_path):
    # Permissions do not keep root from writing.
    (tmp_path / f"{hooks}.py").write_text(
        "from sqlalchemy import create_engine\n"
        "from envoyou_core import Webhooks\n"
        "from envoyou_core.inbox.sql.inbox import SqlInbox\n"
        "engine = create_engine('sqlite:///file:inbox.db?mode=ro&uri=true')\n"
        "webhooks = Webhooks.from_env(inbox=SqlInbox(engine))\n"
    )
    code, found = examine()
    level, text, advice = only(found, "writable")
    assert (code, level) == (1, "problem")
    assert "readonly" in text
    assert "right to write" in advice


def test_the_write_that_is_tried_is_an_insert_of_an_event(examine):
    with closing(sqlite3.connect("inbox.db")) as connection, connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON envoyou_inbox BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    level, text, _ = only(examine()[1], "writable")
    assert level == "problem"
    assert "disk full" in text


def test_nothing_is_left_of_the_write_that_is_tried(examine, hooks):
    assert examine()[0] == 0
    assert imported(hooks).inbox.list() == []


@pytest.mark.parametrize(("mode", "level"), [(0o644, "problem"), (0o660, "warning")])
def test_a_file_that_others_can_read(examine, tmp_path, mode, level):
    (tmp_path / "inbox.db").chmod(mode)
    found_level, text, advice = only(examine()[1], "private")
    assert found_level == level
    assert f"({mode:04o})" in text
    assert advice.startswith("chmod")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user(examine, tmp_path):
    os.chown(tmp_path / "inbox.db", 65534, 65534)
    level, text, _ = only(examine()[1], "private")
    assert level == "warning"
    assert "belongs to another user (id 65534)" in text


@pytest.mark.parametrize(("free", "level"), [(50 * 1024**2, "problem"), (500 * 1024**2, "warning"), (2**40, "ok")])
def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch, free, level):
    # No machine can be expected to have a full disk.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    [finding] = check_disk([("the inbox", tmp_path / "no" / "inbox.db")])
    assert finding.level == level


def test_tables_of_an_earlier_release(examine, bare_postgres_url, monkeypatch):
    import psycopg

    url = make_url(bare_postgres_url)
    monkeypatch.setenv("ENVOYOU_INBOX", url.render_as_string(False))
    assert "the inbox's tables do not exist" in only(examine()[1], "inbox")[1]
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(False), autocommit=True) as connection:
        connection.execute((SCHEMAS / "revision_2.postgresql.sql").read_text(encoding="utf-8"))
    level, text, advice = only(examine()[1], "inbox")
    assert level == "problem"
    assert "the inbox's tables are of an earlier release" in text
    assert advice.startswith("run `envoyou migrate`")


def test_settings_of_a_server_that_are_not_safe(examine, hooks, postgres_inbox_url, monkeypatch):
    url = make_url(postgres_inbox_url)
    options = f"{url.query['options']} -cdefault_transaction_read_only=on -csynchronous_commit=off"
    options += " -cdefault_transaction_isolation=serializable -cidle_in_transaction_session_timeout=2s"
    unsafe = url.update_query_dict({"options": options})
    monkeypatch.setenv("ENVOYOU_INBOX", unsafe.render_as_string(False))
    code, found = examine()
    assert code == 1
    assert "read-only transaction" in only(found, "writable")[1]
    server = {text.partition(" ")[0]: level for check, level, text, _ in found if check == "server"}
    assert server == {
        "transaction_read_only": "problem",
        "synchronous_commit": "warning",
        "default_transaction_isolation": "warning",
        "idle_in_transaction_session_timeout": "warning",
    }
    assert "there is no spool" in only(found, "spool")[1]


def test_a_server_that_is_not_there_is_named_without_its_password(examine, monkeypatch):
    monkeypatch.setenv("ENVOYOU_INBOX", "postgresql+psycopg://shop:hunter2@127.0.0.1:9/shop")
    monkeypatch.setenv("ENVOYOU_SPOOL", "off")
    code, found = examine()
    level, text, advice = only(found, "inbox")
    assert (code, level) == (1, "problem")
    assert "127.0.0.1:9/shop" in text
    assert "hunter2" not in json.dumps(found)
    assert advice.startswith("start the database")
    assert {check for check, *_ in found} == {"inbox"}


@pytest.mark.parametrize("dialect", ["postgresql", "mariadb", "sqlite"])
def test_every_setting_with_a_rule_is_judged(dialect):
    values = dict.fromkeys(RULES[dialect], "something")
    found = list(setting_findings(dialect, values))
    assert [finding.text.partition(" ")[0] for finding in found] == list(RULES[dialect])
    assert all(finding.advice for finding in found)


def test_safe_settings(examine, migrated_mariadb_url, monkeypatch):
    monkeypatch.setenv("ENVOYOU_INBOX", migrated_mariadb_url)
    monkeypatch.setenv("ENVOYOU_SPOOL", "off")
    found = [it for it in examine(keep=["server", "writable", "inbox"])[1] if it[0] in {"server", "writable", "inbox"}]
    assert [(check, level) for check, level, *_ in found] == [("inbox", "ok"), ("writable", "ok"), ("server", "ok")]


def test_a_role_with_few_connections(examine, postgres_inbox_url, monkeypatch):
    import psycopg

    url = make_url(postgres_inbox_url)
    direct = url.set(drivername="postgresql")
    role = f"few_{url.database[-20:]}"
    with psycopg.connect(direct.render_as_string(False), autocommit=True) as connection:
        schema = url.query["options"].rpartition("=")[2]
        connection.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 8")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
        try:
            monkeypatch.setenv("ENVOYOU_INBOX", url.set(username=role).render_as_string(False))
            found = examine()[1]
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
    assert "may open 8 connections" in only(found, "server")[1]
    assert "permission denied" in only(found, "writable")[1]


# Work


def test_a_worker_without_the_handlers_of_this_code(examine, hooks):
    webhooks = imported(hooks)
    beat(webhooks)

    @webhooks.on("user.deleted", name="forget")
    def forget(event): ...

    level, text, _ = only(examine()[1], "handlers")
    assert (level, text) == ("problem", "no live worker has the handler forget")


def test_no_worker_is_a_problem_if_events_wait(examine, hooks):
    webhooks = imported(hooks)
    assert only(examine()[1], "workers")[:2] == ("warning", "no live worker")
    add(webhooks.inbox)
    code, found = examine()
    assert code == 1
    assert only(found, "workers")[:2] == ("problem", "no live worker, and events wait")


def test_a_parameter_that_nothing_provides_is_found(examine, hooks, tmp_path):
    file = tmp_path / f"{hooks}.py"
    file.write_text(file.read_text().replace("welcome(event)", "welcome(event, shop)"))
    code, found = examine()
    assert code == 1
    assert "handler 'welcome' has a required parameter 'shop', which nothing provides" in only(found, "providers")[1]


def test_a_process_that_only_accepts_is_no_worker():
    now = datetime.now(UTC)
    accepting = _this_process(now.timestamp())
    levels = {it.check: it.level for it in process_findings([accepting], ["welcome"], now, is_waiting=True)}
    assert levels["workers"] is Level.PROBLEM


def test_workers_of_different_releases_are_named():
    now = datetime.now(UTC)
    ours = replace(_this_process(now.timestamp()), kind=ProcessKind.WORKER)
    gone = replace(ours, seen_at=now - timedelta(hours=1), version="0.0.1")
    processes = [ours, replace(ours, version="9.9"), gone]
    texts = [finding.text for finding in process_findings(processes, ["welcome"], now, is_waiting=False)]
    assert f"the live processes have different releases: {', '.join(sorted(['9.9', ours.version]))}" in texts


@pytest.mark.parametrize(("seconds", "level"), [(100, "warning"), (400, "problem")])
def test_events_that_are_late(examine, hooks, seconds, level):
    webhooks = imported(hooks)
    beat(webhooks)
    webhooks.inbox._clock = lambda: datetime.now(UTC).timestamp() - seconds
    add(webhooks.inbox)
    webhooks.inbox._clock = lambda: datetime.now(UTC).timestamp()
    found_level, text, _ = only(examine()[1], "events")
    assert found_level == level
    assert "the oldest waiting event is overdue by" in text


def test_what_is_dead_rejected_and_paused(examine, hooks):
    webhooks = imported(hooks)
    beat(webhooks)

    @webhooks.on("auth.login")
    def fail(event):
        raise PermanentError

    for body in (sample_event("auth.login"), b"[]"):
        delivery = sign_delivery(body, secret=SECRET)
        webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    webhooks.pause(type="user.*")
    beat(webhooks)
    found = examine()[1]
    assert [(check, level) for check, level, *_ in found] == [
        ("dead", "warning"),
        ("rejected", "warning"),
        ("paused", "warning"),
    ]
    assert only(found, "dead")[1] == "1 event is dead"
    assert only(found, "rejected")[1] == "1 rejected delivery is kept"
    assert only(found, "paused")[1] == "paused: type:user.*"


def test_events_that_wait_for_a_handler(examine, hooks):
    webhooks = imported(hooks)
    add(webhooks.inbox)
    with closing(sqlite3.connect("inbox.db")) as connection, connection:
        connection.execute("UPDATE envoyou_inbox SET waits_for = 'bill', waits_since = due_at")
    level, text, advice = only(examine()[1], "waiting")
    assert (level, text) == ("problem", "1 event waits for the handler bill, which no process has")
    assert "--drop-handler bill" in advice


# The spool and the nonces


def test_a_spool_with_events(examine, hooks, monkeypatch, tmp_path):
    monkeypatch.setenv("ENVOYOU_SPOOL", "sqlite:///spool.db")
    webhooks = imported(hooks)
    webhooks.spool.open()
    add(webhooks.spool)
    (tmp_path / "spool.db").chmod(0o604)
    found = examine()[1]
    webhooks.spool.close()
    assert only(found, "spool")[:2] == ("warning", "1 event waits in the spool")
    assert "the spool" in only(found, "private")[1]


def test_a_spool_that_cannot_be_opened(examine, monkeypatch, tmp_path):
    (tmp_path / "spool.db").write_text("not a database" * 100)
    monkeypatch.setenv("ENVOYOU_SPOOL", "sqlite:///spool.db")
    assert "the spool cannot be opened" in only(examine()[1], "spool")[1]


def test_redis_that_is_not_there(examine, monkeypatch):
    monkeypatch.setenv("ENVOYOU_NONCES", "redis://127.0.0.1:9/0")
    code, found = examine()
    level, text, _ = only(found, "nonces")
    assert (code, level) == (1, "problem")
    assert "the nonce store does not answer" in text


def test_redis_that_answers(examine, monkeypatch, redis_url):
    monkeypatch.setenv("ENVOYOU_NONCES", redis_url)
    assert only(examine(keep=["nonces"])[1], "nonces")[:2] == ("ok", "the nonce store answers")


def test_a_check_that_fails_is_a_problem_and_the_others_run(examine, hooks, monkeypatch):
    webhooks = imported(hooks)

    def fail():
        raise RuntimeError(f"no statistics with {SECRET}")

    monkeypatch.setattr(webhooks.inbox, "processes", fail)
    code, found = examine(keep=["nonces"])
    assert (code, [check for check, *_ in found]) == (1, ["workers", "nonces"])
    assert "the check failed: RuntimeError" in found[0][2]
    assert SECRET not in json.dumps(found)


# The command


def test_the_url_is_checked_with_the_secret_and_the_headers_of_the_application(examine, hooks, monkeypatch, tmp_path):
    monkeypatch.setenv("ENVOYOU_ENDPOINT_HEADERS", '{"X-Shop": "custom value"}')
    (tmp_path / "headers.json").write_text('{"x-shop": "custom value"}')
    beat(webhooks := imported(hooks))
    with serving(webhooks_entry(not_found, webhooks, path="/")) as port:
        url = f"http://127.0.0.1:{port}/"
        assert examine("--url", url)[0] == 1
        code, found = examine("--url", url, "--headers-file", "headers.json")
    assert (code, [check for check, *_ in found]) == (0, ["public"])
    assert webhooks.inbox.list_rejected() == []


def test_without_a_secret_the_rest_of_the_url_is_checked(examine, monkeypatch, hooks, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET")
    receiving = Webhooks(secret=SECRET, inbox="memory:", handoff="manual")
    with serving(webhooks_entry(not_found, receiving, path="/")) as port:
        url = f"http://127.0.0.1:{port}/"
        found = examine("--url", url, keep=["answers"])[1]
        assert [check for check, *_ in found] == ["secret", "public", "answers", "answers", "signature"]
        assert only(found, "signature")[1] == "no signed delivery was sent, because there is no secret"
        found = examine("--url", url, "--secret-file", "secret", keep=["body"])[1]
    assert only(found, "body")[0] == "ok"
    assert "may keep up to" in only(found, "rejected")[1]


@pytest.mark.parametrize("arguments", [["--url", "shop.example"], ["--base-url", "ftp://api.example"]])
def test_a_wrong_url_is_a_usage_error(hooks, arguments):
    assert CliRunner().invoke(app, ["--app", hooks, "doctor", *arguments]).exit_code == 2


def test_a_finding_is_one_line_in_a_pipe_and_two_on_a_terminal(monkeypatch):
    finding = Finding.problem("inbox", "it is gone [red]", "restore it")
    texts = []
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        [level, check, text] = [next(iter(column.cells)) for column in _row(finding).columns]
        assert (level.plain, check) == ("problem", "inbox")
        texts.append(text.plain)
    assert texts == ["it is gone [red]; to do: restore it", "it is gone [red]\nto do: restore it"]


def test_what_a_server_sends_is_shown_without_control_characters(examine):
    with answering(302, lambda: {"Location": "https://shop.example/\x1b[31m"}) as url:
        found = examine("--url", url)[1]
    assert "\x1b" not in only(found, "redirects")[1]


def test_a_password_in_the_url_is_refused_and_not_shown(hooks):
    result = CliRunner().invoke(app, ["--app", hooks, "doctor", "--url", "http://shop:hunter2@127.0.0.1:9/"])
    assert result.exit_code == 2
    assert "must not contain a user" in result.output
    assert "hunter2" not in result.output
