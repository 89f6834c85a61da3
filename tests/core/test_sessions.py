"""Handlers that change the session of their connection on PostgreSQL: the search path, the role, a time limit."""

import uuid

import pytest
from sqlalchemy import event as engine_event
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from envoyou_core import RetryPolicy, Webhooks
from envoyou_core.inbox import HandlerStatus, NewEvent, Status, sessions
from envoyou_core.inbox.async_sql import AsyncSqlInbox
from envoyou_core.observability import LeaseLost
from envoyou_core.testing import sample_event

PATIENCE = 20


@pytest.fixture(autouse=True)
def without_known_names(monkeypatch):
    monkeypatch.setattr(sessions, "_named", ())


@pytest.fixture
def inbox(postgres_inbox_url, clock, sql_inboxes):
    return sql_inboxes(postgres_inbox_url, clock)


@pytest.fixture
def role(inbox):
    name = f"envoyou_{uuid.uuid4().hex}"
    with inbox._engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name}"))
    yield name
    with inbox._engine.begin() as connection:
        connection.execute(text(f"DROP ROLE {name}"))


def manual(inbox, clock):
    retry = RetryPolicy(max_attempts=1, max_interruptions=0)
    return Webhooks(secret="s", inbox=inbox, handoff="manual", clock=clock, retry=retry)


def add(inbox):
    event = sample_event()
    inbox.add(NewEvent(event)).result(PATIENCE)
    return event


def setting(inbox, name):
    with inbox._engine.connect() as connection:
        return connection.scalar(text(f"SELECT current_setting('{name}')"))


@pytest.mark.parametrize("last", [True, False], ids=["the last handler", "another follows"])
def test_a_handler_that_hides_the_inbox_has_failed_and_not_lost_its_lease(inbox, clock, last):
    webhooks = manual(inbox, clock)
    notices, calls = [], []
    webhooks.subscribe(notices.append)
    webhooks.on("*", name="hides")(lambda event, connection: connection.execute(text("SET search_path = elsewhere")))
    if not last:
        webhooks.on("*", name="follows")(lambda event, connection: calls.append(event.id))
    event = add(inbox)
    webhooks.drain()
    record = inbox.get(event.id)
    assert record.status is Status.DEAD
    assert record.last_error.startswith("SessionStateError: the handler's connection does not find its event")
    assert (record.crashes, len(calls)) == (0, 0 if last else 1)
    assert not any(isinstance(notice, LeaseLost) for notice in notices)


def test_the_error_names_the_setting_that_hides_the_row(inbox, clock):
    """Another table of the same name, as in the schema of a tenant."""
    webhooks = manual(inbox, clock)
    schema = f"tenant_{uuid.uuid4().hex}"

    @webhooks.on("*", name="switches")
    def switches(event, connection):
        connection.execute(text(f"CREATE SCHEMA {schema}"))
        connection.execute(text(f"CREATE TABLE {schema}.envoyou_inbox (LIKE envoyou_inbox)"))
        connection.execute(text(f"SET search_path = {schema}"))

    event = add(inbox)
    webhooks.drain()
    assert f"search_path is '{schema}' instead of 'test_" in inbox.get(event.id).last_error


def test_a_role_that_may_not_write_to_the_inbox_is_the_handlers_failure(inbox, clock, role):
    webhooks = manual(inbox, clock)
    webhooks.on("*", name="drops")(lambda event, connection: connection.execute(text(f"SET ROLE {role}")))
    event = add(inbox)
    webhooks.drain()
    assert inbox.get(event.id).last_error.startswith("SessionStateError")
    assert setting(inbox, "role") == "none"


@pytest.mark.parametrize(
    "statement",
    ["SET search_path = {usual}, elsewhere", "SET statement_timeout = 12345", "SET LOCAL lock_timeout = 12345"],
)
def test_what_a_handler_has_set_does_not_reach_the_next_event(inbox, clock, statement):
    webhooks = manual(inbox, clock)
    seen, backends = [], []

    @webhooks.on("*", name="sets")
    def sets(event, connection):
        names = ("search_path", "statement_timeout", "lock_timeout")
        seen.append([connection.scalar(text(f"SELECT current_setting('{name}')")) for name in names])
        backends.append(connection.scalar(text("SELECT pg_backend_pid()")))
        connection.execute(text(statement.format(usual=seen[0][0])))

    events = [add(inbox) for _ in range(2)]
    assert webhooks.drain() == 2
    assert seen[0] == seen[1]
    assert (backends[0] == backends[1]) is ("LOCAL" in statement)
    assert {inbox.get(event.id).status for event in events} == {Status.PROCESSED}


@pytest.mark.parametrize(
    ("statement", "parameters", "is_closed"),
    [
        ("SET app.tenant = '7'", {}, True),
        ("/* from a view */ SET SESSION app.tenant TO '7'", {}, True),
        ("SELECT set_config('app.tenant', '7', false)", {}, True),
        ("SELECT set_config(:name, '7', :is_local)", {"name": "app.tenant", "is_local": False}, True),
        ("DO $$ BEGIN PERFORM set_config('app.tenant', '7', false); END $$", {}, True),
        ("SELECT set_config('app.tenant', '7', true)", {}, False),
        ("SELECT set_config('app.tenant', '', false)", {}, False),
        ("SET LOCAL app.tenant = '7'", {}, False),
    ],
)
def test_a_custom_setting_of_a_handler_does_not_reach_the_next_event(inbox, clock, statement, parameters, is_closed):
    webhooks = manual(inbox, clock)
    seen, backends = [], []

    @webhooks.on("*", name="sets")
    def sets(event, connection):
        seen.append(connection.scalar(text("SELECT current_setting('app.tenant', true)")) or "")
        backends.append(connection.scalar(text("SELECT pg_backend_pid()")))
        connection.execute(text(statement), parameters)

    for _ in range(2):
        add(inbox)
    assert webhooks.drain() == 2
    assert seen == ["", ""]
    assert (backends[0] != backends[1]) is is_closed


def test_a_setting_that_is_no_custom_one_either(inbox, clock):
    webhooks = manual(inbox, clock)
    usual = setting(inbox, "work_mem")
    seen = []

    @webhooks.on("*", name="sets")
    def sets(event, connection):
        seen.append(connection.scalar(text("SELECT current_setting('work_mem')")))
        # As a handler that uses the driver itself.
        connection.connection.cursor().execute("SET work_mem = '12345kB'")

    for _ in range(2):
        add(inbox)
    assert webhooks.drain() == 2
    assert seen == [usual, usual]


def test_what_the_application_sets_on_each_connection_is_usual(inbox, clock):
    """The connection is closed once, when the setting is named for the first time."""
    webhooks = manual(inbox, clock)
    sets_tenant = ("SET app.tenant = 'all'", "COMMIT")
    engine_event.listen(inbox._engine, "connect", lambda raw, _: [raw.execute(text) for text in sets_tenant])
    inbox._engine.dispose()
    seen = []

    @webhooks.on("*", name="sets")
    def sets(event, connection):
        seen.append(connection.execute(text("SELECT current_setting('app.tenant', true), pg_backend_pid()")).one())
        connection.execute(text("SELECT set_config('app.tenant', 'all', false)"))

    for _ in range(3):
        add(inbox)
    assert webhooks.drain() == 3
    assert [tenant for tenant, _ in seen] == ["all"] * 3
    assert seen[1] == seen[2]


def test_a_handler_may_choose_its_isolation_level(inbox, clock):
    webhooks = manual(inbox, clock)

    @webhooks.on("*", name="isolated")
    def isolated(event, connection):
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))

    event = add(inbox)
    webhooks.drain()
    assert inbox.get(event.id).last_error is None


def test_an_erased_event_is_erased_at_the_end_of_such_a_transaction(inbox, clock):
    webhooks = manual(inbox, clock)
    webhooks.on("*", name="sets")(lambda event, connection: inbox.erase(event.object_id))
    event = sample_event(object={"id": "user_1"})
    inbox.add(NewEvent(event)).result(PATIENCE)
    assert webhooks.drain() == 1
    assert (inbox.get(event.id).status, inbox.get(event.id).event.data.object) == (Status.PROCESSED, {})


ASYNCPG, PSYCOPG = "postgresql+asyncpg", "postgresql+psycopg"


@pytest.mark.parametrize(
    ("driver", "statement"),
    [
        (ASYNCPG, "SET search_path = elsewhere"),
        (ASYNCPG, "SET statement_timeout = 12345"),
        (ASYNCPG, "SET app.tenant = '7'"),
        (PSYCOPG, "SET app.tenant = '7'"),
    ],
)
async def test_async_handlers_too(postgres_inbox_url, inbox, clock, driver, statement):
    url = make_url(postgres_inbox_url)
    schema = url.query["options"].partition("search_path=")[2]
    others = {name: value for name, value in url.query.items() if name != "options"}
    engine = create_async_engine(
        url.set(drivername=driver, query=others if driver is ASYNCPG else url.query),
        connect_args={"server_settings": {"search_path": schema}} if driver is ASYNCPG else {},
    )
    shared = AsyncSqlInbox(engine, url=url, clock=clock)
    webhooks = manual(shared, clock)
    seen = []

    @webhooks.on("*", name="sets")
    async def sets(event, connection):
        values = "current_setting('statement_timeout'), coalesce(current_setting('app.tenant', true), '')"
        seen.append(tuple((await connection.execute(text(f"SELECT {values}"))).one()))
        await connection.execute(text(statement))

    events = [add(shared) for _ in range(2)]
    await webhooks.adrain()
    assert seen == [("0", "")] * 2
    records = [shared.get(event.id) for event in events]
    if "search_path" in statement:
        assert all(record.last_error.startswith("SessionStateError") for record in records)
    else:
        assert [record.progress for record in records] == [{"sets": HandlerStatus.DONE}] * 2
    shared.close()
    await engine.dispose()


def test_values_of_named_settings_are_not_taken_for_names():
    for tenant in ("acme", "globex"):
        assert sessions.note_statement("SELECT set_config('app.tenant', %s, false)", (tenant,))
    assert sessions.named_state() == "json_build_array(current_setting('app.tenant', true))::text"
