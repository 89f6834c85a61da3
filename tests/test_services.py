"""Tests of how services are found, and that nothing is left behind."""

from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
import redis
import sqlalchemy

from tests import services

UNREACHABLE = {
    "PostgreSQL": "postgresql://postgres@127.0.0.1:1/test",
    "Redis": "redis://127.0.0.1:1/0",
}
SERVICES = [
    pytest.param(services.POSTGRES, "postgres_server", id="postgres"),
    pytest.param(services.REDIS, "redis_url", id="redis"),
]

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("ENVOYOU_TEST_EMBEDDED", services.POSTGRES.variable, services.REDIS.variable):
        monkeypatch.delenv(name, raising=False)


def must_not_start():
    pytest.fail("an embedded server was started")


@contextmanager
def cannot_start():
    raise OSError("no such binary")
    yield


@pytest.mark.parametrize(("service", "fixture"), SERVICES)
def test_the_url_in_the_environment_comes_first(service, fixture, request, monkeypatch):
    expected = request.getfixturevalue(fixture)
    monkeypatch.setenv(service.variable, expected)
    service = replace(service, local=UNREACHABLE[service.name], start=must_not_start)
    with service.running() as url:
        assert url == expected


@pytest.mark.parametrize(("service", "fixture"), SERVICES)
def test_an_unreachable_url_in_the_environment_is_a_failure(service, fixture, request, monkeypatch):
    expected = request.getfixturevalue(fixture)
    monkeypatch.setenv(service.variable, UNREACHABLE[service.name])
    service = replace(service, local=expected)
    with pytest.raises(pytest.fail.Exception, match=service.variable), service.running():
        pass


@pytest.mark.parametrize(("service", "fixture"), SERVICES)
def test_a_server_on_the_standard_port_comes_second(service, fixture, request):
    expected = request.getfixturevalue(fixture)
    with replace(service, local=expected, start=must_not_start).running() as url:
        assert url == expected


@pytest.mark.parametrize("service", [services.POSTGRES, services.REDIS], ids=lambda it: it.name)
@pytest.mark.parametrize("reason", ["nothing else answers", "selected"])
def test_an_embedded_server_comes_third_and_is_stopped(service, reason, monkeypatch):
    if reason == "selected":
        monkeypatch.setenv("ENVOYOU_TEST_EMBEDDED", "1")
        monkeypatch.setenv(service.variable, service.local)
    else:
        service = replace(service, local=UNREACHABLE[service.name])
    with service.running() as url:
        assert url != service.local
        assert service.answers(url)
    assert not service.answers(url)


@pytest.mark.parametrize("service", [services.POSTGRES, services.REDIS], ids=lambda it: it.name)
@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_service_fails_in_ci_and_is_skipped_otherwise(service, ci, outcome, monkeypatch):
    monkeypatch.setenv("CI", ci)
    service = replace(service, local=UNREACHABLE[service.name], start=cannot_start)
    with pytest.raises(outcome, match="no such binary"), service.running():
        pass


def test_a_database_is_dropped_despite_open_connections(postgres_server):
    with services.database(postgres_server) as url:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            name = connection.scalar(sqlalchemy.text("SELECT current_database()"))
    engine.dispose()
    assert name.startswith("envoyou_test_")
    with psycopg.connect(postgres_server) as connection:
        row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        assert row.fetchone() is None


def test_a_database_is_empty(postgres_server):
    with services.database(postgres_server) as url:
        engine = sqlalchemy.create_engine(url)
        assert sqlalchemy.inspect(engine).get_table_names() == []
        engine.dispose()


def test_only_keys_with_the_prefix_are_deleted(redis_url, redis_prefix):
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{redis_prefix}kept", "1", ex=60)
        with services.key_prefix(redis_url) as prefix:
            client.set(f"{prefix}gone", "1", ex=60)
        assert client.exists(f"{redis_prefix}kept")
        assert not client.exists(f"{prefix}gone")


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_pgbouncer_fails_in_ci_and_is_skipped_otherwise(ci, outcome, monkeypatch):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(services.shutil, "which", lambda *_, **options: None)
    with pytest.raises(outcome, match="no PgBouncer"), services.pgbouncer("postgresql://postgres@127.0.0.1/test"):
        pass
