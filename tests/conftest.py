"""Fixtures and hooks for all tests."""

import functools
import gc
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import services
from tests.adapters import ADAPTERS, chosen

# pytest does not rewrite assertions in shared test code unless its modules are registered.
pytest.register_assert_rewrite(
    "envoyou_core.testing.fixtures",
    "tests.contract.endpoint",
    "tests.inbox",
    "tests.reliability.sites",
    "tests.servers.processes",
)

MEMORY = Path("/dev/shm")
NEEDED_MEMORY = 4_000_000_000
"""Bytes that must be free for the files of the tests."""

HOSTILE = ("test_canonical.py", "test_hostile_payloads.py")
"""Modules whose numbers of tried inputs are reported."""

collect_ignore = [name for name in ADAPTERS if name not in chosen()]


def has_room(folder: Path) -> bool:
    """Whether the folder can hold all files of the tests, programs included."""
    if not hasattr(os, "statvfs") or not os.access(folder, os.W_OK):
        return False
    free = os.statvfs(folder)
    return free.f_bavail * free.f_frsize >= NEEDED_MEMORY and not free.f_flag & os.ST_NOEXEC


if has_room(MEMORY):
    # Inboxes sync each commit, which costs nothing in memory. What a loss of power leaves is not tested here.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_configure() -> None:
    """Configure Django.

    Not by DJANGO_SETTINGS_MODULE, because pytest-django reads it before pytest has added `tests` to the path.
    """
    if "django" in chosen():
        from django.conf import settings

        module = import_module("tests.django.settings")
        settings.configure(**{name: value for name, value in vars(module).items() if name.isupper()})


def pytest_report_header() -> str:
    spec = find_spec("envoyou_core")
    path = Path(spec.origin).parent if spec and spec.origin else "not installed"
    return f"envoyou_core: {path}; adapters: {', '.join(chosen()) or 'none'}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return two processes per CPU, because many tests wait for processes, databases, leases and clocks."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "reliability" in item.path.parts:
            item.add_marker(pytest.mark.long)
        if not {"postgres_server", "mariadb_server", "redis_url"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.service)
    items[:] = spread_long_tests(items)


def pytest_collection_finish() -> None:
    collect_garbage_less_often()
    if testing := sys.modules.get("typer.testing"):
        # `CliRunner` builds all commands from the signatures of their functions, for each call anew.
        testing._get_command = functools.cache(testing._get_command)


def collect_garbage_less_often() -> None:
    """Spare time: each collection looks through the thousands of tests."""
    gc.set_threshold(20_000, 20, 20)


def spread_long_tests(items: list[pytest.Item]) -> list[pytest.Item]:
    """Spread the long tests evenly among the others.

    They wait more than they compute. Side by side they would be the end of the run, with idle processors.
    """
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    stride = len(others) // len(long) if long else 0
    for number, item in enumerate(long):
        others.insert(number * (stride + 1), item)
    return others


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    show_contract_cases(terminalreporter)
    show_counts(terminalreporter)
    show_inputs(terminalreporter)


def show_contract_cases(terminalreporter: pytest.TerminalReporter) -> None:
    """Report how many contract cases ran with each server, and which responses come from the server itself."""
    cases: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            # The report of a module that is skipped has no properties.
            over = dict(getattr(report, "user_properties", ())).get("contract over")
            if over and (report.when == "call" or report.skipped):
                cases.setdefault(over, Counter())[outcome] += 1
    if any(" under " in over for over in cases):
        from tests.contract.clients.process import way

        terminalreporter.section("cases of the contract")
        for over, outcomes in sorted(cases.items()):
            counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
            own = "".join(f"; {what}" for what in sorted(way(over).by_itself)) if " under " in over else ""
            terminalreporter.write_line(f"{over}: {counted}{own}")


def show_counts(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the counts that the reliability tests print."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, ())]
    counted = [report for report in reports if "tests/reliability/" in report.nodeid and report.capstdout.strip()]
    if counted:
        terminalreporter.section("counts of the reliability tests")
    for report in counted:
        terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {report.capstdout.strip()}")


def show_inputs(terminalreporter: pytest.TerminalReporter) -> None:
    """Report how many inputs the tests with hostile input have tried, as counted by hypothesis."""
    # Hypothesis stores its statistics in the report of the teardown.
    reports = [report for outcome in terminalreporter.stats.values() for report in outcome]
    lines = []
    for report in reports:
        statistics = getattr(report, "_hypothesis_stats", "")
        if statistics and report.nodeid.partition("::")[0].endswith(HOSTILE):
            tried = sum(map(int, re.findall(r"- ([0-9]+) passing", statistics)))
            lines.append(f"{report.nodeid.rpartition('::')[2]}: {tried} inputs")
    if lines:
        terminalreporter.section("tried inputs")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that other runs may use as well: create your own databases."""
    with services.POSTGRES.running() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An SQLAlchemy URL of a database that only this test process uses."""
    with services.database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def pgbouncer_server(postgres_server: str) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode, in front of `postgres_server`."""
    with services.pgbouncer(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def pgbouncer_url(postgres_server: str, pgbouncer_server: str) -> Iterator[str]:
    """An SQLAlchemy URL, through PgBouncer, of a database that only this test process uses."""
    with services.database(postgres_server) as direct:
        database = urlsplit(direct).path
        yield urlsplit(pgbouncer_server)._replace(scheme="postgresql+psycopg", path=database, query="").geturl()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    """The URL of a MariaDB server that other runs may use as well: create your own databases."""
    with services.MARIADB.running() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url(mariadb_server: str) -> Iterator[str]:
    """An SQLAlchemy URL of a database that only this test process uses."""
    # A character set with a case-insensitive collation, so that exact columns must set their own.
    with services.mariadb_database(mariadb_server, "latin1") as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis server that other runs may use as well: use `redis_prefix`."""
    with services.REDIS.running() as url:
        yield url


@pytest.fixture(scope="session")
def redis_prefix(redis_url: str) -> Iterator[str]:
    """The prefix for all keys of this test process."""
    with services.key_prefix(redis_url) as prefix:
        yield prefix
