"""With Flask-SQLAlchemy: the inbox in the app's own database, and the session of each handler."""

from __future__ import annotations

import subprocess
import sys
import time
from queue import Queue

import pytest
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from envoyou_core import ConfigurationError
from envoyou_core.testing import sample_event
from envoyou_flask import Envoyou
from tests.flask.conftest import SECRET, deliver

PATIENCE = 30


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Account(db.Model):
    __tablename__ = "envoyou_test_account"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(255))


SERVERS = [pytest.param(name, marks=pytest.mark.service) for name in ("postgres", "mariadb")]


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'app.db'}"
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def envoyou():
    return Envoyou(db=db)


@pytest.fixture
def app(url, envoyou, request):
    app = Flask("app")
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI=url,
        ENVOYOU_WEBHOOK_SECRET=SECRET,
        ENVOYOU_HANDOFF="manual",
        ENVOYOU_NAME=request.node.name[:64],
        ENVOYOU_RETRY_MAX_ATTEMPTS=2,
        ENVOYOU_RETRY_INITIAL_DELAY=0,
    )
    db.init_app(app)
    envoyou.init_app(app)
    with app.app_context():
        db.create_all()
        envoyou.webhooks.inbox.migrate()
    yield app
    with app.app_context():
        envoyou.webhooks.stop()
        envoyou.webhooks.inbox.close()
        db.session.remove()
        db.drop_all()
        db.engine.dispose()


def drain(app):
    return app.extensions["envoyou"]["envoyou"].drain()


def emails(app):
    with app.app_context():
        return sorted(db.session.scalars(db.select(Account.email)))


def record(app, event_id):
    return app.extensions["envoyou"]["envoyou"].inbox.get(event_id)


def test_the_inbox_is_in_the_apps_database(app):
    event = sample_event()
    assert deliver(app, event).status_code == 200
    with app.app_context():
        found = db.session.scalars(text("SELECT event_id FROM envoyou_inbox WHERE event_id = :id"), {"id": event.id})
        assert found.all() == [event.id]


@pytest.mark.parametrize("commits", [True, False])
def test_what_a_handler_does_with_the_session_is_committed_when_it_is_done(app, envoyou, commits):
    seen = []

    @envoyou.on("user.created")
    def keep(event):
        db.session.add(Account(email=event.data.object["email"]))
        db.session.commit() if commits else db.session.flush()
        seen.append(list(db.session.scalars(db.select(Account.email))))

    event = sample_event("user.created")
    deliver(app, event)
    assert drain(app) == 1
    assert seen == [["john.doe@example.com"]]
    assert emails(app) == ["john.doe@example.com"]
    assert record(app, event.id).status == "processed"


def test_a_handler_may_erase_the_object_of_its_own_event(app, envoyou):
    @envoyou.on("user.deleted")
    def forget(event):
        db.session.add(Account(email="forgotten"))
        db.session.flush()
        assert envoyou.webhooks.inbox.erase(event.object_id) == 1
        db.session.commit()

    event = sample_event("user.deleted")
    deliver(app, event)
    assert drain(app) == 1
    assert emails(app) == ["forgotten"]
    found = record(app, event.id)
    assert (found.status, found.event.data.object) == ("processed", {})


def test_a_commit_of_the_session_is_none_until_the_handler_is_done(app, envoyou):
    seen_from_outside = []

    @envoyou.on("user.created")
    def keep(event, attempt):
        db.session.add(Account(email=f"attempt {attempt}"))
        db.session.commit()
        with db.engine.connect() as outside:
            seen_from_outside.append(outside.scalar(text("SELECT count(*) FROM envoyou_test_account")))
        if attempt == 1:
            raise RuntimeError

    event = sample_event("user.created")
    deliver(app, event)
    drain(app)
    assert seen_from_outside == [0, 0]
    assert emails(app) == ["attempt 2"]
    assert record(app, event.id).status == "processed"


def test_a_rollback_of_the_session_goes_back_to_its_last_commit(app, envoyou):
    @envoyou.on("user.created")
    def keep(event):
        db.session.add(Account(email="kept"))
        db.session.commit()
        db.session.add(Account(email="taken back"))
        db.session.flush()
        db.session.rollback()
        with db.session.begin_nested():
            db.session.add(Account(email="kept, too"))

    deliver(app, sample_event("user.created"))
    assert drain(app) == 1
    assert emails(app) == ["kept", "kept, too"]


def test_what_the_database_refuses_at_the_end_is_a_failure_of_the_handler(app, envoyou):
    @envoyou.on("user.created")
    def keep(event, attempt):
        db.session.add(Account(id=1, email=f"attempt {attempt}"))
        if attempt == 1:
            db.session.execute(db.insert(Account).values(id=1, email="the first"))

    event = sample_event("user.created")
    deliver(app, event)
    drain(app)
    assert emails(app) == ["attempt 2"]
    failed, processed = record(app, event.id).history
    assert (failed.status, processed.status) == ("failed", "processed")
    assert failed.failures[0].error.startswith("IntegrityError")


def test_each_handler_has_a_transaction_and_a_session_of_its_own(app, envoyou):
    sessions = []

    def add(email, fails):
        def handler(event):
            sessions.append(db.session())
            db.session.add(Account(email=email))
            db.session.flush()
            if fails:
                raise RuntimeError

        return handler

    for number, fails in enumerate((False, True, False)):
        envoyou.on("user.created", name=str(number))(add(f"handler {number}", fails))
    deliver(app, sample_event("user.created"))
    drain(app)
    assert emails(app) == ["handler 0", "handler 2"]
    # The one that failed has run twice.
    assert len(set(map(id, sessions))) == 4
    assert not any(session.identity_map or session.in_transaction() for session in sessions)


def test_what_the_app_does_as_a_handlers_context_ends_has_another_session(app, envoyou):
    ends, seen = [], []

    @app.teardown_appcontext
    def look(error):
        while ends:
            seen.append((ends.pop(), db.session.scalar(db.select(db.func.count(Account.id)))))

    @envoyou.on("user.created")
    def keep(event, attempt):
        ends.append(attempt)
        db.session.add(Account(email="kept"))
        db.session.flush()
        if attempt == 1:
            raise RuntimeError

    deliver(app, sample_event("user.created"))
    drain(app)
    assert seen == [(1, 0), (2, 1)]


def test_a_handler_may_work_apart_from_the_inbox(app, envoyou):
    @envoyou.on("user.created", atomic=False)
    def keep(event, attempt):
        db.session.add(Account(email=f"attempt {attempt}"))
        db.session.commit()
        db.session.add(Account(email="never committed"))
        if attempt == 1:
            raise RuntimeError

    deliver(app, sample_event("user.created"))
    drain(app)
    assert emails(app) == ["attempt 1", "attempt 2"]


def test_async_handlers_have_a_session_that_is_removed(app, envoyou):
    sessions = []

    @envoyou.on("user.created")
    async def keep(event):
        db.session.add(Account(email=current_app.name))
        db.session.commit()
        db.session.add(Account(email="never committed"))
        db.session.flush()
        sessions.append(db.session())

    deliver(app, sample_event("user.created"))
    assert drain(app) == 1
    assert emails(app) == ["app"]
    assert not sessions[0].in_transaction()


def test_a_handler_that_goes_on_after_it_has_removed_the_session_fails_and_all_of_it_is_undone(app, envoyou):
    @envoyou.on("user.created")
    def keep(event, attempt):
        db.session.add(Account(email=f"attempt {attempt}"))
        db.session.commit()
        if attempt == 1:
            db.session.remove()
            db.session.add(Account(email="lost"))

    event = sample_event("user.created")
    deliver(app, event)
    drain(app)
    assert emails(app) == ["attempt 2"]
    failed, processed = record(app, event.id).history
    assert failed.failures[0].error.startswith("SessionReplacedError: ")
    assert processed.status == "processed"


def test_a_handler_may_remove_the_session_in_the_end(app, envoyou):
    @envoyou.on("user.created")
    def keep(event):
        db.session.add(Account(email="kept"))
        db.session.commit()
        db.session.remove()

    event = sample_event("user.created")
    deliver(app, event)
    drain(app)
    assert emails(app) == ["kept"]
    assert len(record(app, event.id).history) == 1


def test_an_application_context_within_a_handler_has_a_session_of_its_own(app, envoyou):
    @envoyou.on("user.created")
    def keep(event):
        db.session.add(Account(email="kept"))
        with current_app.app_context():
            db.session.add(Account(email="never committed"))
        db.session.add(Account(email="kept, too"))

    deliver(app, sample_event("user.created"))
    drain(app)
    assert emails(app) == ["kept", "kept, too"]


def test_a_handler_may_take_the_connection_beside_the_session(app, envoyou):
    @envoyou.on("user.created")
    def keep(event, connection):
        db.session.add(Account(email="through the session"))
        db.session.flush()
        assert connection.scalar(text("SELECT count(*) FROM envoyou_test_account")) == 1
        connection.execute(db.insert(Account).values(email="through the connection"))

    deliver(app, sample_event("user.created"))
    assert drain(app) == 1
    assert emails(app) == ["through the connection", "through the session"]


def test_the_worker_and_the_pages_work_side_by_side(app, envoyou):
    """Writers of both kinds on one database: neither starves, nothing is lost, and nothing is done twice."""
    webhooks = app.extensions["envoyou"]["envoyou"]
    handled = Queue()

    @envoyou.on("user.created")
    def keep(event):
        db.session.add(Account(email=event.id))
        db.session.commit()
        handled.put(event.id)

    @app.post("/accounts")
    def make_account():
        db.session.scalar(db.select(db.func.count(Account.id)))
        db.session.add(Account(email="made on a page"))
        db.session.commit()
        return "made"

    webhooks._handoff.start_in_thread()
    events = [sample_event("user.created") for _ in range(20)]
    for it in events:
        assert deliver(app, it).status_code == 200
        webhooks._handoff.wake()
        assert app.test_client().post("/accounts").status_code == 200
    assert {handled.get(timeout=PATIENCE) for _ in events} == {it.id for it in events}
    deadline = time.monotonic() + PATIENCE
    while webhooks.inbox.stats().by_status["processed"] < len(events):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert emails(app) == sorted([*(it.id for it in events), *["made on a page"] * 20])


def test_a_handler_that_keeps_sqlite_for_too_long_fails_and_harms_nobody(app, envoyou, request):
    if request.node.callspec.params["url"] != "sqlite":
        return  # only there is one writer at a time

    @envoyou.on("user.created")
    def keep(event, attempt):
        db.session.add(Account(email=f"attempt {attempt}"))
        db.session.commit()
        if attempt == 1:
            time.sleep(1.5)
            db.session.add(Account(email="too late"))
            db.session.commit()

    event = sample_event("user.created")
    deliver(app, event)
    drain(app)
    assert emails(app) == ["attempt 2"]
    failed, processed = record(app, event.id).history
    assert failed.failures[0].error.startswith("TransactionTimeoutError")
    assert processed.status == "processed"


def test_nothing_that_an_error_says_shows_a_payload(app, envoyou):
    @envoyou.on("user.created")
    def keep(event):
        db.session.execute(text("SELECT :email FROM nowhere"), {"email": event.data.object["email"]})

    event = sample_event("user.created")
    deliver(app, event)
    drain(app)
    history = record(app, event.id).history
    assert "nowhere" in history[0].failures[0].traceback
    assert "john.doe@example.com" not in history[0].failures[0].traceback


FORKS = """
import os
import sys

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from envoyou_flask import Envoyou

db = SQLAlchemy()
app = Flask("app")
app.config.from_mapping(SQLALCHEMY_DATABASE_URI=sys.argv[1], ENVOYOU_WEBHOOK_SECRET="whsec_test")
db.init_app(app)
Envoyou(app, db=db)
with app.app_context():
    db.session.execute(db.text("SELECT 1"))
    db.session.remove()
    kept = db.engine.pool.checkedin()
    if not (child := os.fork()):
        os._exit(db.engine.pool.checkedin())
    print(kept, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_none_of_its_parents_connections(url):
    """What an app that is loaded before its server forks has opened by then: see `gunicorn --preload`."""
    ran = subprocess.run([sys.executable, "-c", FORKS, url], capture_output=True, text=True, timeout=PATIENCE)
    assert (ran.stdout, ran.stderr) == ("1 0\n", "")


# What has to be right before


def configured(uri, **settings):
    app = Flask("app")
    app.config.from_mapping(SQLALCHEMY_DATABASE_URI=uri, ENVOYOU_WEBHOOK_SECRET=SECRET, **settings)
    return app


def test_the_database_comes_first(tmp_path):
    with pytest.raises(ConfigurationError, match=r"call db\.init_app\(app\) first"):
        Envoyou(configured(f"sqlite:///{tmp_path}/app.db"), db=db)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_no_place_for_an_inbox(uri):
    app = configured(uri)
    db.init_app(app)
    with pytest.raises(ConfigurationError, match="must name a SQLite file"):
        Envoyou(app, db=db)


def test_there_is_one_inbox(tmp_path):
    app = configured(f"sqlite:///{tmp_path}/app.db", ENVOYOU_INBOX="sqlite:///inbox.db")
    db.init_app(app)
    with pytest.raises(ConfigurationError, match="ENVOYOU_INBOX"):
        Envoyou(app, db=db)


def test_an_async_handler_cannot_be_atomic(app, envoyou):
    async def keep(event): ...

    with pytest.raises(ConfigurationError, match="async"):
        envoyou.on("user.created", atomic=True)(keep)
