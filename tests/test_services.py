"""Each place where a service may be found, and that a run leaves nothing behind."""

from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
import redis
import sqlalchemy

from tests import services

NOWHERE = {
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
def test_the_address_in_the_environment_comes_first(service, fixture, request, monkeypatch):
    address = request.getfixturevalue(fixture)
    monkeypatch.setenv(service.variable, address)
    service = replace(service, local=NOWHERE[service.name], start=must_not_start)
    with service.running() as found:
        assert found == address


@pytest.mark.parametrize(("service", "fixture"), SERVICES)
def test_an_address_in_the_environment_that_does_not_answer_is_a_failure(service, fixture, request, monkeypatch):
    address = request.getfixturevalue(fixture)
    monkeypatch.setenv(service.variable, NOWHERE[service.name])
    service = replace(service, local=address)
    with pytest.raises(pytest.fail.Exception, match=service.variable), service.running():
        pass


@pytest.mark.parametrize(("service", "fixture"), SERVICES)
def test_a_server_on_the_standard_port_comes_second(service, fixture, request):
    address = request.getfixturevalue(fixture)
    with replace(service, local=address, start=must_not_start).running() as found:
        assert found == address


@pytest.mark.parametrize("service", [services.POSTGRES, services.REDIS], ids=lambda it: it.name)
@pytest.mark.parametrize("reason", ["nothing else answers", "asked for"])
def test_an_embedded_server_comes_third_and_is_stopped(service, reason, monkeypatch):
    if reason == "asked for":
        monkeypatch.setenv("ENVOYOU_TEST_EMBEDDED", "1")
        monkeypatch.setenv(service.variable, service.local)
    else:
        service = replace(service, local=NOWHERE[service.name])
    with service.running() as address:
        assert address != service.local
        assert service.answers(address)
    assert not service.answers(address)


@pytest.mark.parametrize("service", [services.POSTGRES, services.REDIS], ids=lambda it: it.name)
@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_service_that_is_nowhere_fails_in_ci_and_is_skipped_elsewhere(service, ci, outcome, monkeypatch):
    monkeypatch.setenv("CI", ci)
    service = replace(service, local=NOWHERE[service.name], start=cannot_start)
    with pytest.raises(outcome, match="no such binary"), service.running():
        pass


def test_a_database_is_dropped_even_while_somebody_is_connected(postgres_server):
    with services.database(postgres_server) as url:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            name = connection.scalar(sqlalchemy.text("SELECT current_database()"))
    engine.dispose()
    assert name.startswith("envoyou_test_")
    with psycopg.connect(postgres_server) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        assert found.fetchone() is None


def test_a_database_is_new(postgres_server):
    with services.database(postgres_server) as url:
        engine = sqlalchemy.create_engine(url)
        assert sqlalchemy.inspect(engine).get_table_names() == []
        engine.dispose()


def test_keys_with_the_prefix_are_deleted_and_no_others(redis_url, redis_prefix):
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{redis_prefix}kept", "1", ex=60)
        with services.key_prefix(redis_url) as prefix:
            client.set(f"{prefix}gone", "1", ex=60)
        assert client.exists(f"{redis_prefix}kept")
        assert not client.exists(f"{prefix}gone")


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_pgbouncer_that_is_nowhere_fails_in_ci_and_is_skipped_elsewhere(ci, outcome, monkeypatch):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(services.shutil, "which", lambda *_, **options: None)
    with pytest.raises(outcome, match="no PgBouncer"), services.pgbouncer("postgresql://postgres@127.0.0.1/test"):
        pass
