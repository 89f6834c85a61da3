"""The pytest plugin over a `Webhooks` object alone: how it finds it, and what a developer sees."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

HOOKS = """
from envoyou_core import Webhooks

webhooks = Webhooks(secret="whsec_test", inbox="sqlite:///never_created.db")

@webhooks.on("user.created")
def welcome(event):
    print("Welcome,", event.data.object["email"].lower())
"""

# The tests of this process may have configured Django, or run an event loop.
QUIET = ("-p", "no:django", "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:cacheprovider", "-q", "-W", "default")


@pytest.fixture
def run(pytester, monkeypatch):
    """Run tests of an application of its own, in this process."""
    monkeypatch.delenv("ENVOYOU_APP", raising=False)
    monkeypatch.syspath_prepend(pytester.path)

    def run(tests, *options, hooks=HOOKS, **files):
        pytester.makepyfile(hooks=hooks, test_it=tests, **files)
        for name in ("hooks", "app", "test_it", "conftest"):
            sys.modules.pop(name, None)
        return pytester.runpytest_inprocess(*QUIET, *options)

    yield run
    for name in ("hooks", "app", "test_it", "conftest"):
        sys.modules.pop(name, None)


def test_the_plugin_imports_nothing_of_what_it_tests():
    code = "import pytest, sys; before = set(sys.modules); import pytest_envoyou; print(*(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["pytest_envoyou"]


def test_a_test_needs_nothing_but_the_name_of_the_application(run, pytester):
    pytester.makeini("[pytest]\nenvoyou_app = hooks:webhooks")
    result = run(
        """
        def test_it(envoyou_deliver, envoyou_events, envoyou_webhooks, capsys):
            assert envoyou_deliver("user.created", email="ADA@example.com").processed
            assert capsys.readouterr().out == "Welcome, ada@example.com\\n"
            assert [event.type for event in envoyou_events] == ["user.created"]
            assert envoyou_webhooks.inbox.stats().total == 1

        def test_tests_do_not_share_events(envoyou_events, envoyou_webhooks):
            assert not envoyou_events
            assert envoyou_webhooks.inbox.stats().total == 0
        """
    )
    result.assert_outcomes(passed=2)
    assert not list(pytester.path.glob("*.db"))


def test_what_a_developer_sees_when_a_handler_fails_a_name_is_wrong_or_a_drain_is_forgotten(run, pytester):
    pytester.makepyprojecttoml('[tool.envoyou]\napp = "hooks"')
    result = run(
        """
        def test_fails(envoyou_deliver):
            envoyou_deliver("user.created", email=None)

        def test_assertion(envoyou_deliver):
            assert envoyou_deliver("user.created", email=None, raise_errors=False).processed

        def test_misspelt(envoyou_deliver):
            envoyou_deliver(emial="x")

        def test_forgets(envoyou_webhooks, envoyou_deliver):
            assert envoyou_deliver(run_handlers=False).accepted
        """
    )
    result.assert_outcomes(failed=3, passed=1, warnings=1)
    result.stdout.fnmatch_lines(
        [
            '>*envoyou_deliver("user.created", email=None)',
            '>*print("Welcome,", event.data.object*',
            "E*AttributeError: 'NoneType' object has no attribute 'lower'",
            "E*<delivery of user.created evt_*: answered 200, failed in welcome: AttributeError: *>.processed",
            '>*envoyou_deliver(emial="x")',
            "E*TypeError: user.created has no field 'emial'; did you mean 'email'?*",
            "test_it.py::test_forgets",
            "*test_it.py:*UnhandledEventsWarning: 1 event was accepted but not handled*(user.created evt_*): call *",
        ]
    )
    assert "envoyou_core/worker" not in result.stdout.str()


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("hooks:nothing", "*the module 'hooks' has no 'nothing': name the application*"),
        ("no_such_module:app", "*there is no module 'no_such_module'*"),
        ("hooks:HANDLERS", "*the application builtins.list has no endpoint for webhooks. Expected a Flask app*"),
        ("broken:app", "*1 / 0*ZeroDivisionError*|*cannot import the application 'broken:app'*"),
    ],
)
def test_an_application_that_cannot_be_used_is_an_error_with_the_remedy(configuration, message, run, pytester):
    pytester.makeini(f"[pytest]\nenvoyou_app = {configuration}")
    result = run(
        "def test_it(envoyou_deliver): envoyou_deliver()", hooks=f"{HOOKS}\nHANDLERS = []", broken="app = 1 / 0"
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message.rpartition("|")[2]])
    assert "pytest_envoyou" not in result.stdout.str()


def test_a_secret_in_the_table_of_the_application_is_refused(run, pytester):
    pytester.makepyprojecttoml('[tool.envoyou]\nsecret = "whsec_test"')
    result = run("def test_it(envoyou_deliver): envoyou_deliver()")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*secret looks like a secret*"])


def test_without_an_application_the_error_names_the_ways_to_have_one(pytester, monkeypatch):
    # In a process of its own, because the tests of this one may have configured Django.
    for name in ("ENVOYOU_APP", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile("def test_it(envoyou_deliver): envoyou_deliver()")
    result = pytester.runpytest_subprocess(*QUIET)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['no application was found: *fixture `app`*envoyou_app = "app:app"*ENVOYOU_APP*'])


def test_fixtures_of_the_developers_own_come_first(run, pytester):
    pytester.makeini("[pytest]\nenvoyou_app = hooks:nothing")
    result = run(
        """
        import pytest
        import hooks

        @pytest.fixture
        def envoyou_app():
            return hooks.webhooks

        @pytest.fixture
        def envoyou_path():
            return "/hooks"

        def test_it(envoyou_deliver):
            assert envoyou_deliver().path == "/hooks"
        """
    )
    result.assert_outcomes(passed=1)


def test_a_fixture_app_that_lacks_something_is_reported_by_pytest(run):
    result = run(
        """
        import pytest

        @pytest.fixture
        def app(no_such_fixture): ...

        def test_it(envoyou_deliver): ...
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'no_such_fixture' not found"])
