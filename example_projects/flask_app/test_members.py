"""Tests that deliver signed events to the URL of the site; its handlers have run when the delivery returns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from members import create_app
from members.models import Member, db
from members.webhooks import envoyou

from envoyou_core.testing import Deliver, make_event


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """The site with a database of its own, which also has the inbox."""
    app = create_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'members.db'}", ENVOYOU_WEBHOOK_SECRET="whsec_test"
    )
    yield app
    with app.app_context():
        envoyou.webhooks.inbox.close()
        db.engine.dispose()


def members(app: Flask) -> list[tuple[str | None, int]]:
    with app.app_context():
        return [(member.name, member.logins) for member in db.session.scalars(db.select(Member))]


def test_members_are_kept_in_step(app: Flask, envoyou_deliver: Deliver) -> None:
    created = envoyou_deliver("user.created", name="Ada", email="ada@example.com", created=1_700_000_000)
    assert created.processed
    assert members(app) == [("Ada", 0)]
    assert "ada@example.com" in app.test_client().get("/").text
    envoyou_deliver("user.updated", name="Ada L.", created=1_700_000_020)
    # Older than the event before.
    envoyou_deliver("user.updated", name="A.", created=1_700_000_010)
    assert members(app) == [("Ada L.", 0)]
    envoyou_deliver("user.deleted", created=1_700_000_030)
    assert members(app) == []
    assert "Nobody yet." in app.test_client().get("/").text


def test_a_login_is_counted_once_however_often_it_is_delivered(app: Flask, envoyou_deliver: Deliver) -> None:
    envoyou_deliver("user.created", name="Ada")
    login = make_event("auth.login")
    assert [envoyou_deliver(login).duplicate for _ in range(3)] == [False, True, True]
    envoyou_deliver("auth.login")
    assert members(app) == [("Ada", 2)]


def test_what_is_not_signed_is_not_let_in(app: Flask, envoyou_deliver: Deliver) -> None:
    assert envoyou_deliver("user.created", secret="whsec_somebody_elses").status_code == 401
    assert members(app) == []
