"""`envoyou prove` finds what is wrong with an application, and nothing wrong with a sound one."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from envoyou_core import ConfigurationError
from envoyou_core.cli import proving
from envoyou_core.cli.command_line import app
from envoyou_core.cli.proving import finish, print_report
from envoyou_core.inbox import HandlerStatus, InboxRecord, Status
from envoyou_core.inbox.history import Attempt as Handled
from envoyou_core.reception.verification import VerificationPolicy
from envoyou_core.simulator import Attempt
from envoyou_core.storm.comparison import Outcome, compare
from envoyou_core.storm.forgeries import KINDS, ForgeryAnswer
from envoyou_core.storm.plan import handled_types, make_plan
from envoyou_core.storm.report import MEANINGS, Report
from envoyou_core.storm.run import Storm
from tests.adapters import chosen
from tests.contract.clients.servers import uvicorn_server
from tests.documentation.pages import PROJECT
from tests.servers.processes import free_port
from tests.simulator.receiver import SECRET, receiver

COMMAND = [sys.executable, "-c", "from envoyou_core.cli import main; main()"]
TIMEOUT = 120
"""Seconds."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = '{"received": true}'
DUPLICATE = '{"received": true, "duplicate": true}'


def environment(folder, **variables):
    ours = ("ENVOYOU_", "DATABASE_URL", "DJANGO_", "FLASK_", "COLUMNS")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "ENVOYOU_WEBHOOK_SECRET": SECRET,
        "ENVOYOU_INBOX": f"sqlite:///{folder / 'inbox.db'}",
        "EFFECTS": str(folder / "effects"),
        **variables,
    }


def arguments(folder, port, *options):
    server = f"{sys.executable} -m uvicorn tests.simulator.faulty_app:app --port {port} --timeout-graceful-shutdown 3"
    url = f"http://127.0.0.1:{port}/webhooks/envoyou"
    effects = ["--effects", f"{sys.executable} -m tests.simulator.effects"]
    given = ["--to", url, "--server", server, *effects, "--patience", "20", "--json", *options]
    return [*COMMAND, "--app", "tests.simulator.faulty_app", "prove", *given]


def prove(folder, *options, **variables):
    """Run the command against the faulty application, and return its exit code and what it prints."""
    ran = subprocess.run(
        arguments(folder, free_port(), *options),
        cwd=PROJECT,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def counts(result):
    return {kind: result[kind] for kind in MEANINGS if result[kind]}


def reasons(result, kind):
    return {finding["reason"] for finding in result["findings"] if finding["kind"] == kind}


@pytest.mark.slow
def test_a_sound_application_passes(tmp_path):
    report = tmp_path / "report.md"
    code, result = prove(tmp_path, "--events", "150", "--kills", "2", "--report", str(report))
    assert counts(result) == {}
    assert (code, result["passed"]) == (0, True)
    assert (result["sent"], result["processed"]) == (150, 150)
    assert result["forged"] == result["refused"] == 12
    assert result["repeated"] > 0
    assert [line.split()[0] for line in result["restarts"]] == ["SIGKILL", "SIGTERM"]
    assert report.read_text().startswith("# Passed: 150 sent, 12 refused as they should be, 0 lost, 0 doubled\n")


@pytest.mark.slow
def test_events_that_are_acknowledged_before_the_commit_are_lost(tmp_path):
    code, result = prove(tmp_path, "--events", "150", "--kills", "1", "--patience", "3", FAULT="early")
    assert code == 1
    assert reasons(result, "lost") == {"answered 200, and not in the inbox"}
    assert 0 < result["lost"] < 150


@pytest.fixture
def careless(tmp_path, monkeypatch):
    """Serve the application that checks no signature, and return the options with which it is proved."""
    pytest.importorskip("uvicorn")
    for name, value in environment(tmp_path, FAULT="careless", COLUMNS="200").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "careless_hooks.py").write_text("from envoyou_core import Webhooks\nwebhooks = Webhooks.from_env()\n")
    monkeypatch.chdir(tmp_path)
    application = runpy.run_path(str(PROJECT / "tests" / "simulator" / "faulty_app.py"))["app"]
    with uvicorn_server(application, lifespan="auto") as port:
        effects = ["--effects", f"cat {tmp_path / 'effects'}"]
        yield [
            *["--app", "careless_hooks", "prove", "--to", f"http://127.0.0.1:{port}/webhooks/envoyou", *effects],
            *["--type", "user.created", "--patience", "20"],
        ]


def test_double_effects_and_accepted_forgeries_are_found(careless, tmp_path):
    report = tmp_path / "report.md"
    ran = CliRunner().invoke(app, [*careless, "--events", "60", "--report", str(report), "--json"])
    assert ran.exit_code == 1, ran.stderr
    result = json.loads(ran.stdout)
    assert counts(result).keys() == {"doubled", "accepted"}
    assert {"answered as a new event 2 times", "2 effects reported by the application"} <= reasons(result, "doubled")
    assert reasons(result, "accepted") == {f"answered 200, and in the inbox: {kind}" for kind in KINDS}
    assert (result["accepted"], result["refused"], result["forged"]) == (len(KINDS), 0, len(KINDS))
    title, *_ = text = report.read_text().splitlines()
    assert title.startswith("# Failed: 60 sent, 0 refused as they should be, 0 lost, ")
    assert title.endswith(f", {len(KINDS)} accepted")
    assert f"## {len(KINDS)} accepted: {MEANINGS['accepted']}" in text


@pytest.mark.slow
def test_a_signal_ends_the_server_as_well(tmp_path):
    port = free_port()
    command = arguments(tmp_path, port, "--events", "20000")
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr.readline().startswith("Run ")
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
        finally:
            process.kill()
    assert not listens(port)


def listens(port):
    import socket

    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


EXAMPLES = {
    "fastapi": (["--app", "hooks", "prove"], "-m uvicorn app:app --port {port}"),
    "flask": (["prove"], "-m gunicorn -b 127.0.0.1:{port} --threads 8 members:create_app()"),
    "django": (["prove"], "-m gunicorn -b 127.0.0.1:{port} --threads 8 project.wsgi"),
}
COMMANDS = {
    "fastapi": COMMAND,
    "flask": [sys.executable, "-m", "flask", "--app", "members", "envoyou"],
    "django": [sys.executable, "manage.py", "envoyou"],
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("adapter", [name for name in EXAMPLES if name in chosen()])
def test_the_example_projects_pass(adapter, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(PROJECT / "example_projects" / f"{adapter}_app", folder)
    settings = environment(tmp_path, PYTHONPATH=str(PROJECT))
    del settings["ENVOYOU_INBOX"]
    if adapter == "django":
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=folder, env=settings, check=True)
    port = free_port()
    given, server = EXAMPLES[adapter]
    options = ["--to", f"http://127.0.0.1:{port}/webhooks/envoyou", "--server", f"{sys.executable} {server}"]
    ran = subprocess.run(
        [*COMMANDS[adapter], *given, *options[:3], options[3].format(port=port), "--events", "400", "--json"],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ran.stdout, ran.stderr
    result = json.loads(ran.stdout)
    assert counts(result) == {}
    assert (ran.returncode, result["processed"], len(result["restarts"])) == (0, 400, 4)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--to", "nowhere"], 2, "expected a URL such as"),
        (["--to", "http://127.0.0.1:9/hook"], 1, "Is the server running?"),
        (["--to", "http://192.0.2.1/hook"], 1, "only loopback addresses are allowed"),
        (["--to", "{url}", "--server", "python"], 1, "another process listens"),
        (
            ["--to", "http://127.0.0.1:9/hook", "--server", "{python} -c raise(SystemExit(7))"],
            1,
            "ended with 7: it has",
        ),
        (["--to", "http://127.0.0.1:9/hook", "--server", "{python} -c broken"], 1, "| NameError: name"),
        (["--to", "http://127.0.0.1:9/hook", "--server", "no-such-command"], 1, "cannot start 'no-such-command'"),
        (["--to", "{url}", "--type", "user.creatd"], 2, "expected one of user.created"),
        (["--to", "{url}", "--type", "user.created"], 1, "has answered 404 to a POST"),
    ],
)
def test_what_cannot_be_proved_is_one_line(arguments, code, said, tmp_path, monkeypatch):
    (tmp_path / "proved_hooks.py").write_text("from envoyou_core import Webhooks\nwebhooks = Webhooks.from_env()\n")
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path, COLUMNS="200").items():
        monkeypatch.setenv(name, value)
    with receiver() as endpoint:
        endpoint.statuses = [404]
        given = [each.replace("{url}", endpoint.url).replace("{python}", sys.executable) for each in arguments]
        result = CliRunner().invoke(app, ["--app", "proved_hooks", "prove", *given])
    assert result.exit_code == code, result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1 or code == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{sys.executable} -c raise(SystemExit(3))", "has ended with 3"),
        ("no-such-command", "cannot run the command"),
        ("'", "cannot run the command"),
    ],
)
def test_a_command_for_effects_that_fails_is_no_proof(command, said):
    with pytest.raises(ConfigurationError, match=said):
        proving._effects(command, make_plan("ab", ["user.created"], 1, created=7))


def test_an_inbox_in_memory_cannot_be_compared(tmp_path, monkeypatch):
    (tmp_path / "memory_hooks.py").write_text(
        f"from envoyou_core import Webhooks\nwebhooks = Webhooks(secret={SECRET!r}, inbox='memory:')\n"
    )
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["--app", "memory_hooks", "prove", "--to", "http://127.0.0.1:9/hook"])
    assert result.exit_code == 1
    assert "cannot be read from here" in " ".join(result.stderr.split())


def attempt(status=200, answer=NEW, error="", event_id="evt_prove_ab_0"):
    return Attempt(
        sequence=1,
        event_id=event_id,
        event_type="user.created",
        webhook_id="wh_1",
        delivery=1,
        number=1,
        sent_at=0.0,
        seconds=0.0,
        status=status,
        answer=answer,
        error=error,
        delivered=True,
    )


def record(status=Status.PROCESSED, **fields):
    [event] = make_plan("ab", ["user.created"], 1, created=0).events
    given = {"attempts": 1, "crashes": 0, "next_attempt_at": None, "settled_at": NOW, "last_error": None, **fields}
    return InboxRecord(event=event, status=status, received_at=NOW, **given)


TWICE = (Handled(NOW, "processed", 1.0), Handled(NOW, "processed", 1.0))
ONE = "evt_prove_ab_0"
DONE = {"keep": HandlerStatus.DONE}


@pytest.mark.parametrize(
    ("attempts", "stored", "in_spool", "effects", "kind"),
    [
        ([attempt()], record(), False, None, None),
        ([attempt(), attempt(answer=DUPLICATE)], record(Status.IGNORED), False, None, None),
        ([attempt(), attempt()], record(), False, None, "doubled"),
        ([attempt()], record(history=TWICE), False, None, "doubled"),
        ([attempt()], record(progress=DONE), False, [ONE], None),
        ([attempt()], record(progress=DONE), False, [ONE, ONE], "doubled"),
        ([attempt()], None, False, None, "lost"),
        ([attempt(None, "", "refused"), attempt()], None, False, None, "lost"),
        ([attempt()], None, True, None, "unfinished"),
        ([attempt()], record(Status.FAILED, last_error="KeyError"), False, None, "unfinished"),
        ([attempt()], record(Status.DEAD, last_error="KeyError"), False, None, "dead"),
        ([attempt(503, "")], None, False, None, "undelivered"),
        ([attempt(None, "", "no answer")], None, False, None, "undelivered"),
        ([], None, False, None, "undelivered"),
    ],
)
def test_each_event_is_compared(attempts, stored, in_spool, effects, kind):
    events = make_plan("ab", ["user.created"], 1, created=0).events
    outcome = compare(events, attempts, [], find=lambda _: stored, in_spool=lambda _: in_spool, effects=effects)
    assert [finding.kind for finding in outcome.findings] == ([] if kind is None else [kind])
    assert outcome.passed is (kind is None)


def test_a_missing_effect_is_a_loss_if_other_events_of_the_type_have_theirs():
    events = make_plan("ab", ["user.created", "auth.login"], 4, created=0).events
    skipped = {"keep": HandlerStatus.SKIPPED}
    records = {event.id: record(progress=DONE) for event in events}
    attempts = [attempt(event_id=event.id) for event in events]

    def lost():
        outcome = compare(events, attempts, [], find=records.get, effects=[ONE])
        return [finding.event_id for finding in outcome.of_kind("lost")]

    assert lost() == ["evt_prove_ab_2"], "the other type reports no effects at all"
    records["evt_prove_ab_2"] = record(progress=skipped)
    assert lost() == []


@pytest.mark.parametrize(
    ("status", "is_stored", "kind"),
    [
        (401, False, None),
        (400, False, None),
        (200, False, "accepted"),
        (401, True, "accepted"),
        (404, False, "unclear"),
        (500, False, "unclear"),
        (None, False, "unclear"),
    ],
)
def test_each_forgery_must_be_refused(status, is_stored, kind):
    answer = ForgeryAnswer("evt_prove_ab_forged_0", "an hour old", status)
    outcome = compare([], [], [answer], find=lambda _: record() if is_stored else None)
    assert [finding.kind for finding in outcome.findings] == ([] if kind is None else [kind])
    assert outcome.refused == (kind is None)


def test_the_events_of_a_run_are_recognisable_and_users_come_first():
    plan = make_plan("ab", ["auth.login", "user.created"], 5, created=7)
    first, others = plan.waves
    assert {event.type for event in first} == {"user.created"}
    assert {event.data.object["user_id"] for event in others} < {event.data.object["id"] for event in first}
    assert {event.data.object["email"] for event in first} == {f"obj_prove_ab_{n}@example.com" for n in range(3)}
    assert all(event.created == 7 and plan.ids_in(f"<{event.id}>") == [event.id] for event in plan.events)
    assert plan.ids_in("evt_prove_cd_1 evt_prove_ab_forged_1 evt_1") == []
    assert handled_types(["auth.*"]) == ("auth.login", "auth.logout", "auth.failed", "auth.password_reset")
    assert handled_types(["own.type"]) == ("user.created",)


def test_the_report_names_events_and_their_number(capsys):
    events = make_plan("ab", ["user.created"], 30, created=0).events
    outcome = compare(events, [attempt(event_id=event.id) for event in events], [], find=lambda _: None)
    report = Report(run="ab", url="http://127.0.0.1/", types=["user.created"], seed=0, outcome=outcome)
    text = report.as_markdown()
    assert "# Failed: 30 sent, 0 refused as they should be, 30 lost, 0 doubled" in text
    assert f"- {ONE}: answered 200, and not in the inbox" in text
    assert "- and 20 more" in text
    print_report(report)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "30 sent, 0 refused as they should be, 30 lost, 0 doubled"
    assert printed[4:7] == ["", f"30 lost: {MEANINGS['lost']}", f"  {ONE}: answered 200, and not in the inbox"]
    assert "Does --app name the application" in text


def test_a_report_that_has_passed_ends_without_an_error(tmp_path, capsys):
    counted = {"requests": 5_600, "repeated": 590, "unanswered": 12, "processed": 5_000, "ignored": 0}
    outcome = Outcome(sent=5_000, forged=212, refused=212, interrupted=3, **counted)
    finish(
        Report(run="ab", url="http://127.0.0.1/", types=["user.created"], seed=0, outcome=outcome),
        tmp_path / "report.md",
        as_json=False,
    )
    summary = "5,000 sent, 212 refused as they should be, 0 lost, 0 doubled"
    assert capsys.readouterr().out.splitlines()[0] == summary
    assert (tmp_path / "report.md").read_text().startswith(f"# Passed: {summary}\n")


@pytest.mark.parametrize(
    ("options", "seed", "canonical", "skew"),
    [
        ({}, 0, 0.2, -60),
        ({}, 1, 0.2, 60),
        ({"signed_content": ["raw"], "tolerance": 30}, 0, 0.0, -15),
        ({"signed_content": ["canonical"], "tolerance": 0}, 1, 1.0, 0),
    ],
)
def test_the_trouble_is_such_that_the_application_must_accept_it(options, seed, canonical, skew):
    plan = make_plan("ab", ["user.created"], 1, created=0)
    trouble = Storm(plan=plan, url="", secret="", seed=seed, policy=VerificationPolicy(**options)).trouble
    assert (trouble.canonical_signatures, trouble.clock_skew) == (canonical, skew)


@pytest.mark.parametrize("command", ["prove", "dev"])
def test_without_the_extra_the_error_names_it(command, monkeypatch):
    for name in [*(each for each in sys.modules if each.startswith(("envoyou_core.simulator", "envoyou_core.storm")))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, [command, "--to", "http://127.0.0.1:9/hook"])
    assert result.exit_code == 1
    assert f"{command} needs uvicorn: pip install 'envoyou-webhooks[simulator]'" in " ".join(result.stderr.split())
