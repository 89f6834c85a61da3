"""What a handler does with `db.session`, in a process that is killed at the worst moments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
from sqlalchemy import create_engine, text

pytestmark = pytest.mark.slow

PATIENCE = 60

POINTS = (
    "after flush",
    "after commit of the session",
    "after handler, before settle",
    "after settle, before commit",
)
"""Where a process is killed, each over an event of its own."""

SITE = """
import json
import os
import signal
import sys
import time

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
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


def live(database, atomic, crash):
    # Accept an event and die over it at the point `crash`, or work off those that others have died over.
    about_to_crash = False

    def crash_at(point):
        if about_to_crash and point == crash:
            os.kill(os.getpid(), signal.SIGKILL)

    @envoyou.on("user.created", atomic=atomic)
    def count(event):
        nonlocal about_to_crash
        about_to_crash = event.data.object["crash"] == crash
        db.session.add(Effect(event=event.data.object["crash"]))
        db.session.flush()
        crash_at("after flush")
        db.session.commit()
        crash_at("after commit of the session")

    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI=database,
        ENVOYOU_WEBHOOK_SECRET="whsec_test",
        ENVOYOU_HANDOFF="manual",
        ENVOYOU_LEASE=1,
    )
    db.init_app(app)
    envoyou.init_app(app)
    with app.app_context():
        db.create_all()
        inbox = envoyou.webhooks.inbox
        inbox.migrate()
        settle = inbox._settle

        def settle_with_points(*arguments):
            crash_at("after handler, before settle")
            settled = settle(*arguments)
            crash_at("after settle, before commit")
            return settled

        inbox._settle = settle_with_points
        delivery = sign_delivery(sample_event("user.created", object={"crash": crash}), secret="whsec_test")
        answer = app.test_client().post("/webhooks/envoyou", data=delivery.body, headers=delivery.headers)
        assert answer.status_code == 200
        envoyou.webhooks.drain()
        deadline = time.monotonic() + 30
        while not crash and inbox.stats().by_status["processed"] < inbox.stats().total:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            envoyou.webhooks.drain()


database, atomic, *points = sys.argv[1:]
for crash in [*points, ""]:
    if not (child := os.fork()):
        live(database, atomic == "atomic", crash)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if crash else 0), crash
"""


@pytest.fixture
def url(request, tmp_path):
    return f"sqlite:///{tmp_path / 'app.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.mark.parametrize(
    ("url", "atomic"),
    [("sqlite", True), ("sqlite", False), pytest.param("postgresql", True, marks=pytest.mark.service)],
    indirect=["url"],
)
def test_each_effect_is_there_once_although_the_process_was_killed(url, tmp_path, atomic):
    (tmp_path / "site_of_effects.py").write_text(SITE)
    engine = create_engine(url)
    try:
        command = [sys.executable, tmp_path / "site_of_effects.py", url, "atomic" if atomic else "by itself", *POINTS]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode == 0, ran.stderr
        with engine.connect() as connection:
            effects = Counter(connection.scalars(text("SELECT event FROM envoyou_test_effect")))
            rows = connection.execute(text("SELECT body, crashes FROM envoyou_inbox")).all()
    finally:
        with engine.begin() as connection:
            for table in ("test_effect", "inbox", "marks", "paused", "schema"):
                connection.execute(text(f"DROP TABLE IF EXISTS envoyou_{table}"))
        engine.dispose()
    crashes = {json.loads(bytes(row.body))["data"]["object"]["crash"]: row.crashes for row in rows}
    assert crashes == {**dict.fromkeys(POINTS, 1), "": 0}
    if atomic:
        assert effects == dict.fromkeys([*POINTS, ""], 1)
    else:
        # Left to itself, what was committed before the crash is done again.
        assert effects == {**dict.fromkeys(POINTS, 2), "after flush": 1, "": 1}
