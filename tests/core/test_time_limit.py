"""The time limit of a transaction on SQLite, in each state that its thread may be in when it expires.

Each case with an expired limit runs in a process of its own, because a failure there stops all threads of the process.
"""

import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from envoyou_core import TransactionTimeoutError
from envoyou_core.inbox import deadlines as module
from envoyou_core.inbox.deadlines import time_limit

BEFORE = """
import sqlite3, sys, threading, time
from contextlib import suppress
from envoyou_core import TransactionTimeoutError
from envoyou_core.inbox import deadlines as module
from envoyou_core.inbox.deadlines import time_limit

database = sys.argv[1]
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
# The limit expires while the first row is computed, even if the statement started late.
ENDLESS_PAST_THE_TIME = ENDLESS.replace("SELECT 1", "SELECT time_is_over()")

def time_is_over():
    alarms = module._deadlines
    with alarms._changed:
        alarms._due = dict.fromkeys(alarms._due, 0.0)
        alarms._changed.notify()
    return 1

def connect():
    return sqlite3.connect(database, isolation_level=None, check_same_thread=False, timeout=30)

def limited(connection, block, seconds=60):
    expired = threading.Event()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO effects VALUES ('before')")
    try:
        with time_limit(connection, seconds, expired.set):
            block(expired)
    except TransactionTimeoutError:
        print("rolled back")
    assert expired.is_set()
    assert not connection.in_transaction

def write_in_vain():
    try:
        connection.execute("INSERT INTO effects VALUES ('after')")
    except sqlite3.OperationalError as error:
        print(error)

connection = connect()
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE effects (what)")
connection.create_function("slow", 1, lambda x: time.sleep(0.001) or x)
connection.create_function("time_is_over", 0, time_is_over)
"""

AFTER = """
# The database works as before: for this connection, for others, and with the next limit.
connection.execute("INSERT INTO effects VALUES ('later')")
limited(connection, lambda expired: expired.wait(30), seconds=0.1)
print([what for what, in connect().execute("SELECT what FROM effects")])
"""

BLOCKS = {
    "a long statement": """
        def block(expired):
            with suppress(sqlite3.OperationalError):
                connection.execute(ENDLESS_PAST_THE_TIME + "SELECT count(*) FROM n").fetchone()
            expired.wait(30)
            write_in_vain()
    """,
    "a statement that calls Python": """
        def block(expired):
            with suppress(sqlite3.OperationalError):
                connection.execute(ENDLESS_PAST_THE_TIME + "SELECT sum(slow(x)) FROM n").fetchone()
            expired.wait(30)
            write_in_vain()
    """,
    "one statement after the other": """
        def block(expired):
            time_is_over()
            while not expired.is_set():
                # On a busy machine, a statement may run long enough to be interrupted.
                with suppress(sqlite3.OperationalError):
                    connection.execute("SELECT slow(1)").fetchone()
            write_in_vain()
    """,
    "an open cursor": """
        def block(expired):
            block.cursor = connection.execute(ENDLESS + "SELECT x FROM n")
            assert block.cursor.fetchone() == (1,)
            time_is_over()
            assert expired.wait(30)
            with suppress(sqlite3.OperationalError):
                block.cursor.fetchone()
            write_in_vain()
    """,
    "nothing": """
        def block(expired):
            time_is_over()
            assert expired.wait(30)
            write_in_vain()
    """,
}


def run(tmp_path: Path, *code: str) -> list[str]:
    program = "\n".join(textwrap.dedent(part) for part in code)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "inbox.db")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("block", BLOCKS)
def test_expired_transaction_is_rolled_back(tmp_path, block):
    assert run(tmp_path, BEFORE, BLOCKS[block], "limited(connection, block)", AFTER) == [
        "attempt to write a readonly database",
        "rolled back",
        "rolled back",
        "['later']",
    ]


def test_an_interrupted_statement_beside_an_open_cursor(tmp_path):
    """While a cursor is open, every statement is interrupted, a rollback too. Here the cursor outlives the block."""
    block = """
        def block(expired):
            block.cursor = connection.execute(ENDLESS + "SELECT x FROM n")
            assert block.cursor.fetchone() == (1,)
            try:
                connection.execute(ENDLESS_PAST_THE_TIME + "SELECT count(*) FROM n").fetchone()
            except sqlite3.OperationalError as error:
                print(error)
    """
    after = """
        expired = threading.Event()
        connection.execute("BEGIN IMMEDIATE")
        try:
            with time_limit(connection, 60, expired.set):
                connection.execute("INSERT INTO effects VALUES ('before')")
                block(expired)
        except TransactionTimeoutError:
            print("rolled back")
        try:
            connection.execute("SELECT 1")
        except sqlite3.ProgrammingError as error:
            print(error)
        del block.cursor
        connection = connect()
        limited(connection, lambda expired: expired.wait(30), seconds=0.1)
        print(connection.execute("SELECT count(*) FROM effects").fetchone())
    """
    assert run(tmp_path, BEFORE, block, after) == [
        "interrupted",
        "rolled back",
        "Cannot operate on a closed database.",
        "rolled back",
        "(0,)",
    ]


def test_limit_without_a_thread_is_not_enforced_and_the_next_one_is(tmp_path):
    code = """
        start = threading.Thread.start

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = refuse
        connection.execute("BEGIN IMMEDIATE")
        with time_limit(connection, 0.01, print):
            time.sleep(0.05)
        connection.execute("COMMIT")
        threading.Thread.start = start
        limited(connection, lambda expired: expired.wait(30), seconds=0.1)
    """
    assert run(tmp_path, BEFORE, code) == ["rolled back"]


@pytest.fixture
def begun():
    """Opens connections that are in a transaction."""
    with ExitStack() as stack:

        def begin() -> sqlite3.Connection:
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            stack.callback(connection.close)
            connection.execute("BEGIN")
            return connection

        yield begin


@pytest.fixture
def alarms(monkeypatch):
    """A deadline thread of this test only: limits left by earlier tests are elsewhere."""
    alarms = module._DeadlineThread()
    monkeypatch.setattr(module, "_deadlines", alarms)
    return alarms


def test_a_limit_is_kept_for_no_longer_than_its_block(alarms, begun):
    """Otherwise thousands of ended limits a second would pile up until they expire."""
    with time_limit(begun(), 30, lambda: None), time_limit(begun(), 60, lambda: None):
        assert len(alarms._due) == 2
    assert not alarms._due


def test_a_shorter_limit_does_not_wait_for_a_longer_one(alarms, begun):
    expired = threading.Event()
    with time_limit(begun(), 60, lambda: None):
        while not alarms._sleeps_until:
            time.sleep(0.001)
        with pytest.raises(TransactionTimeoutError), time_limit(begun(), 0.05, expired.set):
            assert expired.wait(30)
        assert len(alarms._due) == 1
