"""What only an inbox in a SQL database has: pragmas, plans, schema, outages, processes."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError

from envoyou_core import ConfigurationError, Event, WebhookRequest, Webhooks
from envoyou_core.errors import describe
from envoyou_core.event import EventData
from envoyou_core.inbox import COUNTED, Added, ClaimFilter, NewEvent, Status, open_inbox
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql import cleanup, engines, requeueing
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.inbox.sql.migrations import OLDEST_COMPATIBLE, REVISION
from envoyou_core.testing import sample_event, sign_delivery
from tests.inbox.acts import LEASE, PATIENCE, add, add_about, add_settled, claim_one, entry, ids, settle

SECRET = "whsec_test"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_inbox_url")


@pytest.fixture
def inbox(url, clock, sql_inboxes):
    inbox = sql_inboxes(url, clock)
    inbox.open()
    return inbox


@pytest.fixture
def sqlite_inbox(sqlite_url, clock, sql_inboxes):
    inbox = sql_inboxes(sqlite_url, clock)
    inbox.open()
    return inbox


@pytest.fixture
def postgres_inbox(postgres_inbox_url, clock, sql_inboxes):
    return sql_inboxes(postgres_inbox_url, clock)


def statements_of(inbox, action):
    """The statements that `action` sends to the database, with their parameters."""
    sent = []

    def listen(connection, cursor, statement, parameters, context, executemany):
        sent.append((statement, parameters))

    event.listen(inbox._engine, "before_cursor_execute", listen)
    try:
        action()
    finally:
        event.remove(inbox._engine, "before_cursor_execute", listen)
    return sent


def trace(inbox, listen):
    """Call `listen` with each statement that SQLite begins, also if it is not executed by SQLAlchemy."""
    with inbox._engine.connect() as connection:
        # The pool has this one only, unless several are used at once.
        connection.connection.driver_connection.set_trace_callback(listen)


def path_of(url):
    return make_url(url).database


# Requeueing


def test_many_events_are_requeued_in_batches_of_few_statements(inbox, clock, monkeypatch):
    monkeypatch.setattr(requeueing, "BATCH", 4)
    for number in range(10):
        add_settled(inbox, f"evt_{number}", Status.DEAD)
    progress = []

    def fail_again(requeued):
        progress.append(requeued)
        if requeued == 4:
            # The batches are committed one by one, so that others can work in between.
            (claim,) = inbox.claim(1, LEASE)
            settle(inbox, claim, Status.DEAD)

    sent = statements_of(inbox, lambda: progress.append(inbox.requeue(status="dead", on_progress=fail_again)))
    assert progress == [4, 8, 10, 10]
    assert len([1 for statement, _ in sent if statement.startswith("UPDATE") and "waits_for" in statement]) <= 4
    assert inbox.stats().by_status["dead"] == 1


# SQLite


def test_sqlite_survives_a_power_cut_and_waits_for_locks(sqlite_inbox):
    with sqlite_inbox._reading() as first, sqlite_inbox._reading() as second:
        for connection in (first, second):
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "busy_timeout")
            }
            assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 2000}


def test_every_writing_transaction_on_sqlite_asks_for_the_lock_first(sqlite_inbox):
    claims = []
    writing = [
        lambda: add(sqlite_inbox),
        lambda: claims.append(claim_one(sqlite_inbox)),
        lambda: sqlite_inbox.renew(claims, LEASE),
        lambda: sqlite_inbox.record(claims[0], {}),
        lambda: settle(sqlite_inbox, claims[0], Status.DEAD),
        lambda: sqlite_inbox.requeue("evt_1"),
        lambda: sqlite_inbox.prune(timedelta(0)),
    ]
    sent = []
    trace(sqlite_inbox, sent.append)
    for action in writing:
        sent.clear()
        action()
        assert "BEGIN IMMEDIATE" in sent
        assert all(statement.startswith(("SELECT", "PRAGMA")) for statement in sent[: sent.index("BEGIN IMMEDIATE")])


def test_looking_does_not_wait_for_a_writer_on_sqlite(sqlite_inbox, sqlite_url):
    add(sqlite_inbox)
    writer = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        sent = statements_of(sqlite_inbox, lambda: sqlite_inbox.stats() and sqlite_inbox.get("evt_1"))
        assert len(sent) >= 2
        assert not [statement for statement, _ in sent if statement.startswith("BEGIN")]
        assert sqlite_inbox.seconds_until_due() == 0
    finally:
        writer.close()


def test_a_row_number_that_was_pruned_does_not_come_again(sqlite_inbox, clock):
    add_settled(sqlite_inbox, "evt_1", Status.PROCESSED)
    clock.advance(10)
    assert sqlite_inbox.prune(timedelta(seconds=1)) == 1
    add(sqlite_inbox, "evt_2")
    assert claim_one(sqlite_inbox).key == 2


def test_a_database_that_stays_locked_is_an_outage_for_the_whole_batch(sqlite_url, sql_inboxes, monkeypatch):
    monkeypatch.setattr(engines, "CONNECT_TIMEOUT", 0.05)
    inbox = sql_inboxes(sqlite_url)
    inbox.open()
    writer = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        futures = []

        def fill():
            futures.extend(inbox.add(entry(f"evt_{number}")) for number in range(50))
            errors = [future.exception(PATIENCE) for future in futures]
            assert all(isinstance(error, OperationalError) for error in errors)

        # One batch while the first was in flight, perhaps a third: never one try for each event.
        assert len(statements_of(inbox, fill)) <= 5
    finally:
        writer.close()
    assert add(inbox, "evt_0") is Added.NEW


def is_closed(connection):
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def test_a_connection_that_is_in_use_when_the_inbox_closes_is_closed_afterwards(sqlite_inbox):
    with sqlite_inbox._reading() as connection:
        in_use = connection.connection.dbapi_connection
        sqlite_inbox.close()
        assert not is_closed(in_use)
    assert is_closed(in_use)
    with sqlite_inbox._reading() as connection:
        in_use = connection.connection.dbapi_connection
    assert not is_closed(in_use)


def test_a_connection_that_cannot_be_prepared_is_closed(tmp_path):
    connection = sqlite3.connect(tmp_path / "inbox.db")
    (tmp_path / "inbox.db").write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        engines._prepare_sqlite(connection, None)
    assert is_closed(connection)


def test_sqlite_in_memory_is_refused():
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ConfigurationError, match="not durable"):
            SqlInbox(url)


def test_many_processes_may_open_a_new_sqlite_file_at_once(sqlite_url):
    script = """
        import sys
        from envoyou_core.inbox import NewEvent, open_inbox
        from envoyou_core.testing import sample_event
        inbox = open_inbox(sys.argv[1])
        sys.stdin.read()
        print(inbox.add(NewEvent(sample_event(id=sys.argv[2]))).result(20).value)
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), sqlite_url, f"evt_{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        process.stdin.close()
        process.stdin = None
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output.strip()) == (0, "new"), errors


# PostgreSQL


PLANS = [
    "",
    "-cenable_hashjoin=off",
    "-cenable_hashjoin=off -cenable_mergejoin=off",
    "-cenable_hashjoin=off -cenable_mergejoin=off -cenable_hashagg=off -cenable_sort=off -cenable_material=off",
    "-cenable_nestloop=off -cenable_hashjoin=off",
    "-cenable_seqscan=off -cenable_hashjoin=off -cenable_mergejoin=off -cenable_bitmapscan=off",
    "-cenable_indexscan=off -cenable_bitmapscan=off -cenable_indexonlyscan=off -cenable_hashjoin=off",
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_claim_of_one_takes_one_under_any_plan(postgres_inbox_url, sql_inboxes, clock, plan):
    url = make_url(postgres_inbox_url)
    inbox = sql_inboxes(url.update_query_dict({"options": f"{url.query['options']} {plan}"}), clock)
    for future in [inbox.add(entry(f"evt_{number}")) for number in range(30)]:
        future.result(PATIENCE)
    assert len(inbox.claim(1, LEASE)) == 1
    assert inbox.stats().by_status[Status.PROCESSING] == 1
    assert len(inbox.claim(7, LEASE)) == 7
    assert inbox.stats().by_status[Status.PROCESSING] == 8


def test_a_claim_passes_over_what_another_transaction_holds(postgres_inbox):
    add(postgres_inbox, "evt_held")
    add(postgres_inbox, "evt_free")
    with postgres_inbox._engine.begin() as other:
        other.execute(text("SELECT 1 FROM envoyou_inbox WHERE event_id = 'evt_held' FOR UPDATE"))
        assert ids(postgres_inbox.claim(10, LEASE)) == ["evt_free"]
    assert ids(postgres_inbox.claim(10, LEASE)) == ["evt_held"]


def test_a_connection_that_the_server_ended_is_replaced(postgres_inbox):
    add(postgres_inbox, "evt_1")
    ours = "SELECT pg_backend_pid()"
    with postgres_inbox._engine.connect() as connection:
        pid = connection.scalar(text(ours))
    admin = create_engine(postgres_inbox._engine.url)
    with admin.connect() as connection:
        assert connection.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    admin.dispose()
    assert add(postgres_inbox, "evt_2") is Added.NEW
    assert postgres_inbox.stats().total == 2


# Plans


FILL = """
    INSERT INTO envoyou_inbox (name, tenant, event_id, type, created, body, status, attempts, crashes, progress,
                               received_at, settled_at)
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
    SELECT 'default', '', 'evt_old_' || n, 'user.created', 0, 'x', 'processed', 1, 0, '{}', n, n FROM numbers
"""


@pytest.mark.parametrize("action", ["claim", "seconds_until_due"])
def test_what_a_worker_asks_is_answered_by_the_partial_index(inbox, action):
    fill = FILL if inbox._engine.dialect.name == "sqlite" else FILL.replace("'x'", r"'\x78'::bytea")
    with inbox._engine.begin() as connection:
        connection.exec_driver_sql(fill)
    with inbox._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE envoyou_inbox")
    for number in range(20):
        add(inbox, f"evt_{number}")
    asked = {"claim": lambda: inbox.claim(5, LEASE), "seconds_until_due": inbox.seconds_until_due}[action]
    [(statement, parameters)] = [sent for sent in statements_of(inbox, asked) if "envoyou_inbox" in sent[0]]
    explain = "EXPLAIN QUERY PLAN " if inbox._engine.dialect.name == "sqlite" else "EXPLAIN "
    with inbox._engine.connect() as connection:
        plan = "\n".join(str(row) for row in connection.exec_driver_sql(explain + statement, parameters))
    assert "envoyou_inbox_due" in plan
    assert "Seq Scan on envoyou_inbox" not in plan
    assert "SCAN envoyou_inbox\n" not in plan + "\n"


SERVERS = {"postgresql": "postgres", "mariadb": "mariadb"}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def filled_inbox(request, clock, sql_inboxes):
    """One with 20,000 processed events, which the database has counted."""
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else f"{SERVERS[request.param]}_inbox_url")
    inbox = sql_inboxes(url, clock)
    inbox.open()
    fill = FILL.replace("'x'", r"'\x78'::bytea") if request.param == "postgresql" else FILL
    if request.param == "mariadb":
        # By default, recursion ends after a thousand rows.
        fill = "SET STATEMENT max_recursive_iterations = 100000 FOR " + fill
        fill = fill.replace("'evt_old_' || n", "concat('evt_old_', n)")
    analyze = "ANALYZE TABLE envoyou_inbox" if request.param == "mariadb" else "ANALYZE envoyou_inbox"
    with inbox._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(fill)
        connection.exec_driver_sql(analyze)
    return inbox


def plans_of(inbox, action):
    """How the database would execute the statements that `action` sends, one text for each."""
    explain = "EXPLAIN QUERY PLAN " if inbox._engine.dialect.name == "sqlite" else "EXPLAIN "
    plans = []
    for statement, parameters in statements_of(inbox, action):
        if "FROM envoyou_inbox" in statement or statement.startswith("UPDATE envoyou_inbox"):
            with inbox._engine.connect() as connection:
                rows = connection.exec_driver_sql(explain + statement, parameters)
                plans.append("\n".join(" ".join(map(str, row)) for row in rows))
    return plans


def test_an_event_is_found_by_its_id_alone_through_the_unique_key(filled_inbox):
    [plan] = plans_of(filled_inbox, lambda: filled_inbox.get("evt_old_7"))
    assert "envoyou_inbox_key" in plan
    # A backward scan of the primary key would also stop at the first one found, after half of the table.
    assert "pkey" not in plan


def test_stats_read_indexes_and_not_the_table(filled_inbox):
    plans = plans_of(filled_inbox, filled_inbox.stats)
    assert len(plans) == 5
    for plan in plans:
        assert any(f"envoyou_inbox_{index}" in plan for index in ("settled", "due", "waits"))
        assert "Seq Scan" not in plan


@pytest.mark.parametrize("ordered", [(), ("*",)], ids=["in any order", "ordered"])
def test_what_waits_for_a_handler_is_found_by_its_own_index(filled_inbox, ordered):
    handlers = HandlerSet.of([("welcome", ["user.created"]), ("bill", ["user.*"])])
    waiting = ClaimFilter(handlers=handlers, waiting=True, ordered=ordered)
    for find in (lambda: filled_inbox.has_waiting(handlers), lambda: filled_inbox.claim(10, LEASE, waiting)):
        plan = plans_of(filled_inbox, find)[-1]
        assert "envoyou_inbox_waits" in plan
        assert "Seq Scan" not in plan


def test_the_leases_of_a_process_are_found_by_the_status(filled_inbox):
    for find in (filled_inbox.lease_holders, lambda: filled_inbox.end_leases(["a" * 32])):
        plan = plans_of(filled_inbox, find)[-1]
        assert "envoyou_inbox_settled" in plan
        assert "Seq Scan" not in plan


def test_stats_count_what_piles_up_only_to_a_limit(filled_inbox):
    add(filled_inbox, "evt_new")
    stats = filled_inbox.stats()
    assert stats.by_status[Status.PROCESSED] == COUNTED
    assert stats.by_status[Status.RECEIVED] == 1
    assert stats.at_least == {Status.PROCESSED}
    assert stats.total == COUNTED + 1
    exact = filled_inbox.stats(exact=True)
    assert (exact.by_status[Status.PROCESSED], exact.at_least, exact.total) == (20_000, frozenset(), 20_001)


# Unreadable rows on SQLite, where a column of numbers takes text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("attempts", "'many'"),
        ("attempts", "-1"),
        ("crashes", "'many'"),
        ("received_at", "'soon'"),
        ("received_at", "9000000000000000000"),
        ("due_at", "'soon'"),
        ("due_at", "9000000000000000000"),
        ("settled_at", "'soon'"),
        ("scrubbed_at", "'soon'"),
        ("type", "cast(x'ff' AS text)"),
        ("body", "'{{'"),
        ("body", "17"),
    ],
)
def test_any_value_in_any_column_is_shown_and_disturbs_no_other_event(sqlite_inbox, column, value):
    add(sqlite_inbox, "evt_1")
    add(sqlite_inbox, "evt_2")
    overwrite(sqlite_inbox, "evt_1", column, value)
    records = sqlite_inbox.list()
    assert [(record.event.id, record.unreadable is None) for record in records] == [("evt_2", True), ("evt_1", False)]
    assert sqlite_inbox.seconds_until_due() == 0
    assert "evt_2" in ids(sqlite_inbox.claim(10, LEASE))
    assert sqlite_inbox.seconds_until_due() > 0
    assert sqlite_inbox.stats().total == 2


def test_a_time_that_is_no_number_makes_nothing_due(sqlite_inbox):
    add(sqlite_inbox)
    overwrite(sqlite_inbox, "evt_1", "due_at", "'soon'")
    assert sqlite_inbox.seconds_until_due() is None
    assert sqlite_inbox.claim(10, LEASE) == []


def test_a_creation_time_that_is_no_number_does_not_count(sqlite_inbox, clock):
    add_about(sqlite_inbox, "usr_1", "evt_1")
    settle(sqlite_inbox, claim_one(sqlite_inbox), Status.PROCESSED)
    overwrite(sqlite_inbox, "evt_1", "created", "'soon'")
    add_about(sqlite_inbox, "usr_1", "evt_2")
    claim = claim_one(sqlite_inbox)
    assert sqlite_inbox.newest_applied(claim) is None
    clock.advance(10)
    assert sqlite_inbox.prune(timedelta(seconds=1)) == 1
    assert sqlite_inbox.newest_applied(claim) is None


def test_a_body_that_was_stored_as_text_is_readable(sqlite_inbox):
    add(sqlite_inbox)
    overwrite(sqlite_inbox, "evt_1", "body", f"'{entry().event.body.decode()}'")
    assert claim_one(sqlite_inbox).event == entry().event
    assert add(sqlite_inbox) is Added.DUPLICATE


def overwrite(inbox, id, column, value):
    with inbox._engine.begin() as connection:
        statement = f"UPDATE envoyou_inbox SET {column} = {value} WHERE event_id = '{id}'"
        assert connection.exec_driver_sql(statement).rowcount == 1


# Both


def test_pruning_goes_in_bounded_transactions(inbox, clock, monkeypatch):
    monkeypatch.setattr(cleanup, "BATCH", 2)
    for number in range(5):
        add_settled(inbox, f"evt_{number}", Status.PROCESSED)
    add(inbox, "evt_waiting")
    clock.advance(10)
    pruned = []
    sent = statements_of(inbox, lambda: pruned.append(inbox.prune(timedelta(seconds=1))))
    assert pruned == [5]
    assert len([statement for statement, _ in sent if statement.startswith("DELETE")]) == 3
    assert ids(inbox.list()) == ["evt_waiting"]


def test_events_that_wait_together_are_stored_together(inbox):
    add(inbox, "evt_first")
    all_wait = threading.Event()
    transactions = []

    def hold_the_first(connection):
        transactions.append(connection)
        assert all_wait.wait(PATIENCE)

    event.listen(inbox._engine, "begin", hold_the_first)
    futures = [inbox.add(entry(f"evt_{number}")) for number in range(300)]
    all_wait.set()
    assert {future.result(PATIENCE) for future in futures} == {Added.NEW}
    assert 0 < len(transactions) < 30
    assert inbox.stats().total == 301


def test_an_event_that_another_stores_at_the_last_moment_is_a_duplicate(inbox, url, clock, sql_inboxes):
    other = sql_inboxes(url, clock)
    # On SQLite nobody else writes once the transaction has begun.
    last_moment = "BEGIN IMMEDIATE" if inbox._engine.dialect.name == "sqlite" else "INSERT"
    stored = []

    def listen(statement):
        if statement.startswith(last_moment) and not stored:
            stored.append(add(other))

    if inbox._engine.dialect.name == "sqlite":
        inbox.open()
        trace(inbox, listen)
    else:
        event.listen(inbox._engine, "before_cursor_execute", lambda _, __, statement, *___: listen(statement))
    assert add(inbox) is Added.DUPLICATE
    assert stored == [Added.NEW]
    assert inbox.stats().total == 1


def test_an_error_of_the_database_tells_nothing_of_the_payload(inbox):
    event = Event(
        id="evt_1",
        type="user.created",
        created=None,
        data=EventData(b"{}"),
        webhook_id=None,
        body=b"very-private",
    )
    error = inbox.add(NewEvent(event)).exception(PATIENCE)
    assert isinstance(error, IntegrityError)
    assert "very-private" not in str(error)
    assert "parameters hidden" in str(error)
    assert "evt_1" not in describe(error)
    assert "IntegrityError" in describe(error)


def test_times_are_kept_to_the_microsecond(inbox, clock):
    clock.now = 1_700_000_000.123457
    add(inbox)
    assert inbox.get("evt_1").received_at.microsecond == 123457
    settle(inbox, claim_one(inbox), Status.FAILED, retry_in=0.000002)
    assert inbox.get("evt_1").next_attempt_at.microsecond == 123459


def test_an_engine_of_the_users_own_is_used_as_it_is(url, clock):
    inbox = SqlInbox(url)
    inbox.open()
    inbox.close()
    engine = create_engine(url, hide_parameters=True)
    inbox = SqlInbox(engine, clock=clock)
    assert add(inbox) is Added.NEW
    assert inbox._engine is engine
    inbox.close()


def test_a_child_process_after_a_fork_adds_and_claims_on_its_own(url):
    script = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from envoyou_core.inbox import NewEvent, open_inbox
        from envoyou_core.testing import sample_event
        inbox = open_inbox(sys.argv[1])

        def add(id):
            return inbox.add(NewEvent(sample_event(id=id, created=1))).result(20).value

        assert add("evt_parent") == "new"
        child = os.fork()
        if child == 0:
            try:
                assert add("evt_child") == "new" and add("evt_parent") == "duplicate"
                assert {claim.event.id for claim in inbox.claim(10, 60)} == {"evt_parent", "evt_child"}
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert add("evt_child") == "duplicate" and add("evt_later") == "new"
        assert inbox.stats().by_status["processing"] == 2
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), url], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


# Schema


def envoyou(*arguments, inbox=None):
    command = shutil.which("envoyou", path=sysconfig.get_path("scripts"))
    assert command, "the command envoyou is not installed"
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "200"} | ({"ENVOYOU_INBOX": inbox} if inbox else {})
    return subprocess.run(
        [command, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_missing_tables_on_postgresql_name_the_command_that_makes_them(bare_postgres_url, sql_inboxes):
    inbox = sql_inboxes(bare_postgres_url)
    for use in (inbox.open, inbox.seconds_until_due, inbox.stats, lambda: inbox.claim(1, LEASE)):
        with pytest.raises(ConfigurationError, match="envoyou migrate"):
            use()
    error = inbox.add(entry()).exception(PATIENCE)
    assert isinstance(error, ConfigurationError)
    inbox.migrate()
    assert add(inbox) is Added.NEW


def test_a_delivery_that_finds_no_tables_is_answered_503_and_a_start_refused(bare_postgres_url):
    webhooks = Webhooks(secret=SECRET, inbox=bare_postgres_url)
    delivery = sign_delivery(sample_event(), secret=SECRET)
    response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 503
    assert b"migrate" not in response.body
    with pytest.raises(ConfigurationError, match="envoyou migrate"):
        webhooks.start()

    async def live():
        async with webhooks.lifespan():
            raise AssertionError("it started")

    with pytest.raises(ConfigurationError, match="envoyou migrate"):
        asyncio.run(live())
    webhooks.inbox.close()


def test_envoyou_migrate_sets_up_postgresql_and_may_be_run_again(bare_postgres_url, sql_inboxes):
    for _ in range(2):
        ended = envoyou("migrate", inbox=bare_postgres_url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert f"schema {REVISION}" in ended.stdout
    assert add(sql_inboxes(bare_postgres_url)) is Added.NEW


def test_envoyou_migrate_by_several_machines_at_once(bare_postgres_url, sql_inboxes):
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: envoyou("migrate", inbox=bare_postgres_url), range(4)))
    assert [(one.returncode, one.stderr) for one in ended] == [(0, "")] * 4
    inbox = sql_inboxes(bare_postgres_url)
    with inbox._engine.connect() as connection:
        found = connection.execute(text("SELECT version, revision FROM envoyou_schema")).all()
        assert found == [(OLDEST_COMPATIBLE, REVISION)]


@pytest.mark.parametrize(
    "inbox",
    ["postgresql+psycopg://envoyou:very-private@127.0.0.1:1/nowhere", "very-private", "sqlite://", "mysql+nowhere://x"],
)
def test_envoyou_migrate_that_fails_says_so_in_one_line_without_the_password(inbox):
    ended = envoyou("migrate", inbox=inbox)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "very-private" not in ended.stdout + ended.stderr


def test_a_database_set_up_by_a_later_release_is_refused(inbox, url, sql_inboxes):
    with inbox._engine.begin() as connection:
        connection.execute(text("UPDATE envoyou_schema SET version = 99"))
    with pytest.raises(ConfigurationError, match=r"later release \(schema 99"):
        sql_inboxes(url).open()
    with pytest.raises(ConfigurationError, match="later release"):
        inbox.migrate()


# URLs


def test_an_inbox_is_opened_by_its_url(sqlite_url, clock):
    inbox = open_inbox(sqlite_url, name="billing", clock=clock)
    assert isinstance(inbox, SqlInbox)
    assert inbox.name == "billing"
    for url in ("memory:", "memory://"):
        inbox = open_inbox(url, name="trial", clock=clock)
        assert isinstance(inbox, MemoryInbox)
        assert (inbox.name, inbox._clock) == ("trial", clock)


def test_other_databases_are_refused():
    class Dialect:
        name = "mssql"

    class OtherEngine(type(create_engine("sqlite://"))):
        def __init__(self):
            self.dialect = Dialect()

    with pytest.raises(ConfigurationError, match="must be on SQLite, PostgreSQL or MariaDB, got mssql"):
        SqlInbox(OtherEngine())


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_no_column_holds_is_refused(name, sqlite_url):
    with pytest.raises(ConfigurationError, match="1 to 64"):
        SqlInbox(sqlite_url, name=name)


def test_without_sqlalchemy_the_extra_is_named(monkeypatch, sqlite_url):
    monkeypatch.setitem(sys.modules, "envoyou_core.inbox.sql.inbox", None)
    with pytest.raises(ConfigurationError, match=r"envoyou-webhooks\[sql\]"):
        open_inbox(sqlite_url)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_was_forked_while_a_thread_was_opening_the_inbox_can_use_it(sqlite_url):
    script = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from envoyou_core.inbox import NewEvent
        from envoyou_core.inbox.sql.inbox import SqlInbox
        from envoyou_core.testing import sample_event
        inbox = SqlInbox(sys.argv[1])
        with inbox._opening:
            child = os.fork()
            if child == 0:
                inbox.add(NewEvent(sample_event())).result(20)
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), sqlite_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
