"""A handler's work with `db.session`, in a process that is killed at the worst moments."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from sqlalchemy import create_engine, select, text

from envoyou_core.inbox.sql.schema import inbox_table

pytestmark = pytest.mark.slow

PATIENCE = 60

POINTS = (
    "after flush",
    "after commit of the session",
    "after handler, before settle",
    "after settle, before commit",
)
"""The points where a process is killed, each with an event of its own."""

SITE = """
import json
import os
import signal
import sys
import time

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from envoyou_core.testing import sample_event, sign_delivery
from envoyou_flask import Envoyou


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
envoyou = Envoyou(db=db)


class Effect(db.Model):
    __tablename__ = "envoyou_test_effect"

    id: Mapped[int] = mapped_column(primary_key=True)
    event: Mapped[str]


def live(database, atomic, point, *, crashes):
    # Accept an event and die while it is handled, or handle the event that was left. Each point has its own inbox.
    @envoyou.on("user.created", atomic=atomic)
    def count(event):
        db.session.add(Effect(event=point))
        db.session.flush()
        crash_at("after flush")
        db.session.commit()
        crash_at("after commit of the session")

    def crash_at(passed):
        if crashes and passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI=database,
        ENVOYOU_WEBHOOK_SECRET="whsec_test",
        ENVOYOU_HANDOFF="manual",
        ENVOYOU_LEASE=1,
        ENVOYOU_NAME=point,
    )
    db.init_app(app)
    envoyou.init_app(app)
    with app.app_context():
        db.create_all()
        inbox = envoyou.webhooks.inbox
        inbox.migrate()

        @sqlalchemy_event.listens_for(inbox._engine, "before_cursor_execute")
        def before(_connection, _cursor, statement, *_):
            if statement.startswith("UPDATE envoyou_inbox SET status") and "settled_at" in statement:
                crash_at("after handler, before settle")

        @sqlalchemy_event.listens_for(inbox._engine, "after_cursor_execute")
        def after(_connection, _cursor, statement, *_):
            if statement.startswith("UPDATE envoyou_inbox SET status") and "settled_at" in statement:
                crash_at("after settle, before commit")

        if crashes:
            delivery = sign_delivery(sample_event("user.created"), secret="whsec_test")
            answer = app.test_client().post("/webhooks/envoyou", data=delivery.body, headers=delivery.headers)
            assert answer.status_code == 200
        deadline = time.monotonic() + 30
        while inbox.stats().by_status["processed"] < inbox.stats().total:
            assert time.monotonic() < deadline
            envoyou.webhooks.drain()
            time.sleep(0.05)


database, atomic, *points = sys.argv[1:]
for crashes in (True, False):
    for point in points:
        if not (child := os.fork()):
            live(database, atomic == "atomic", point, crashes=crashes)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if crashes else 0), point
"""


@pytest.fixture
def url(request, tmp_path):
    return f"sqlite:///{tmp_path / 'app.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.mark.parametrize(
    ("url", "atomic"),
    [("sqlite", True), ("sqlite", False), pytest.param("postgresql", True, marks=pytest.mark.service)],
    indirect=["url"],
)
def test_each_effect_happens_once_although_the_process_was_killed(url, tmp_path, atomic):
    (tmp_path / "site_of_effects.py").write_text(SITE)
    engine = create_engine(url)
    row = inbox_table.c
    try:
        command = [sys.executable, tmp_path / "site_of_effects.py", url, "atomic" if atomic else "by itself", *POINTS]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode == 0, ran.stderr
        with engine.connect() as connection:
            effects = Counter(connection.scalars(text("SELECT event FROM envoyou_test_effect")))
            rows = connection.execute(select(row.name, row.status, row.crashes).where(row.name.in_(POINTS))).all()
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE envoyou_test_effect"))
            connection.execute(inbox_table.delete().where(row.name.in_(POINTS)))
        engine.dispose()
    assert sorted(map(tuple, rows)) == sorted((point, "processed", 1) for point in POINTS)
    if atomic:
        assert effects == dict.fromkeys(POINTS, 1)
    else:
        # Without the shared transaction, work that was committed before the crash is done again.
        assert effects == {**dict.fromkeys(POINTS, 2), "after flush": 1}
