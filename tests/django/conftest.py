"""The tests' Django project, with a database in a file: threads share it as they would in production."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from tests import services
from tests.django.databases import (
    empty,
    inbox_on,
    mariadb_database,
    postgres_database,
    sqlite_database,
)
from tests.inbox.acts import HandClock

SECRET = "whsec_the_django_tests"


@pytest.fixture(scope="session")
def django_db_setup(tmp_path_factory, django_db_blocker) -> Iterator[None]:
    """In the place of pytest-django's, whose SQLite database lies in memory."""
    with django_db_blocker.unblock(), sqlite_database("default", tmp_path_factory.mktemp("django") / "project.db"):
        yield


@pytest.fixture(scope="session")
def postgres_alias(postgres_url, django_db_blocker) -> Iterator[str]:
    with django_db_blocker.unblock(), postgres_database("postgres", postgres_url, "envoyou_django"):
        yield "postgres"


@pytest.fixture(scope="session")
def mariadb_alias(mariadb_server, django_db_blocker) -> Iterator[str]:
    with (
        django_db_blocker.unblock(),
        services.mariadb_database(mariadb_server, "utf8mb4") as url,
        mariadb_database("mariadb", url, "envoyou_django"),
    ):
        yield "mariadb"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def inbox_alias(request, django_db_setup, django_db_blocker) -> Iterator[str]:
    """The alias of each kind of database in turn, with the inbox on it, and no transaction open."""
    fixtures = {"postgresql": "postgres_alias", "mariadb": "mariadb_alias"}
    alias = request.getfixturevalue(fixtures[request.param]) if request.param in fixtures else "default"
    with django_db_blocker.unblock(), inbox_on(alias):
        # The servers' databases are shared with tests that leave rows in them.
        empty(alias)
        yield alias
        empty(alias)


@pytest.fixture(params=["postgresql", "mariadb"])
def server_alias(request, postgres_alias):
    return postgres_alias if request.param == "postgresql" else request.getfixturevalue("mariadb_alias")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    """The project as its settings have it, whatever else is being served in this process."""
    with inbox_on("default"), override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        yield
