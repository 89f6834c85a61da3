"""What every test can ask for, and which tests this run has."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import services
from tests.adapters import ADAPTERS, chosen

# Tests that several classes share lie in modules of other names than pytest rewrites by itself.
pytest.register_assert_rewrite(
    *(f"tests.{path.stem}" for path in Path(__file__).parent.glob("inbox_*.py")),
    "tests.contract.endpoint",
    "tests.reliability.sites",
    "tests.servers.processes",
)

HOSTILE = ("test_canonical.py", "test_hostile_payloads.py")
"""Modules whose tests are worth as much as the inputs they have tried."""

collect_ignore = [name for name in ADAPTERS if name not in chosen()]


def pytest_configure() -> None:
    """Hands Django its settings.

    Not by DJANGO_SETTINGS_MODULE: pytest-django reads that before pytest has put `tests` on the path.
    """
    if "django" in chosen():
        from django.conf import settings

        own = import_module("tests.django.settings")
        settings.configure(**{name: value for name, value in vars(own).items() if name.isupper()})


def pytest_report_header() -> str:
    spec = find_spec("envoyou_core")
    place = Path(spec.origin).parent if spec and spec.origin else "nowhere"
    return f"envoyou_core: {place}; adapters: {', '.join(chosen()) or 'none'}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Two processes for each CPU: tests that wait for processes, leases and clocks leave one idle."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "reliability" in item.path.parts:
            item.add_marker(pytest.mark.long)
        if not {"postgres_server", "mariadb_server", "redis_url"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.service)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    show_contract_cases(terminalreporter)
    show_counts(terminalreporter)
    show_inputs(terminalreporter)


def show_contract_cases(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how many cases of the contract were run over each server, and what it answers by itself."""
    cases: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            # A module that is skipped as a whole has a report of another kind.
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
    """Show what the reliability tests counted: that nothing was lost is a figure, not a dot."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, ())]
    counted = [report for report in reports if "tests/reliability/" in report.nodeid and report.capstdout.strip()]
    if counted:
        terminalreporter.section("counts of the reliability tests")
    for report in counted:
        terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {report.capstdout.strip()}")


def show_inputs(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how many inputs the tests with hostile input have tried, by hypothesis's own count."""
    # Hypothesis leaves its statistics on the report of the teardown.
    reports = [report for outcome in terminalreporter.stats.values() for report in outcome]
    lines = []
    for report in reports:
        statistics = getattr(report, "_hypothesis_stats", "")
        if statistics and report.nodeid.partition("::")[0].endswith(HOSTILE):
            tried = sum(map(int, re.findall(r"- ([0-9]+) passing", statistics)))
            lines.append(f"{report.nodeid.rpartition('::')[2]}: {tried} inputs")
    if lines:
        terminalreporter.section("inputs that were tried")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that this run may share with others: make databases on it."""
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
    """The URL of a MariaDB server that this run may share with others: make databases on it."""
    with services.MARIADB.running() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url(mariadb_server: str) -> Iterator[str]:
    """An SQLAlchemy URL of a database that only this test process uses."""
    # Of a collation that takes much for the same: what must be exact has to see to that itself.
    with services.mariadb_database(mariadb_server, "latin1") as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis server that this run may share with others: use `redis_prefix` on it."""
    with services.REDIS.running() as url:
        yield url


@pytest.fixture(scope="session")
def redis_prefix(redis_url: str) -> Iterator[str]:
    """The prefix that every key of this test process must bear."""
    with services.key_prefix(redis_url) as prefix:
        yield prefix
