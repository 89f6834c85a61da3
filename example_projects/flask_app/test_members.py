"""Tests that send signed deliveries to the URL of the site and run the handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from members import create_app
from members.models import Member, db
from members.webhooks import envoyou

from envoyou_core import Event
from envoyou_core.testing import sample_event, sign_delivery

USER = {"id": "user_1", "name": "Ada", "email": "ada@example.com"}
LOGIN = {"user_id": "user_1", "ip_address": "192.0.2.1"}

Deliver = Callable[[Event], int]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = create_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'members.db'}",
        ENVOYOU_WEBHOOK_SECRET="whsec_test",
        ENVOYOU_HANDOFF="manual",
    )
    yield app
    with app.app_context():
        envoyou.webhooks.inbox.close()
        db.engine.dispose()


@pytest.fixture
def deliver(app: Flask) -> Deliver:
    def deliver(event: Event, secret: str = "whsec_test") -> int:
        delivery = sign_delivery(event, secret=secret)
        answer = app.test_client().post("/webhooks/envoyou", data=delivery.body, headers=delivery.headers)
        with app.app_context():
            envoyou.webhooks.drain(raise_errors=True)
        return answer.status_code

    return deliver


def members(app: Flask) -> list[tuple[str | None, int]]:
    with app.app_context():
        return [(member.name, member.logins) for member in db.session.scalars(db.select(Member))]


def test_members_are_kept_in_step(app: Flask, deliver: Deliver) -> None:
    created = sample_event("user.created", object=USER, created=1_700_000_000)
    assert deliver(created) == 200
    assert members(app) == [("Ada", 0)]
    assert "ada@example.com" in app.test_client().get("/").text
    deliver(sample_event("user.updated", object=USER | {"name": "Ada L."}, created=1_700_000_020))
    # Older than the event before.
    deliver(sample_event("user.updated", object=USER | {"name": "A."}, created=1_700_000_010))
    assert members(app) == [("Ada L.", 0)]
    deliver(sample_event("user.deleted", object=USER, created=1_700_000_030))
    assert members(app) == []
    assert "Nobody yet." in app.test_client().get("/").text


def test_a_login_is_counted_once_however_often_it_is_delivered(app: Flask, deliver: Deliver) -> None:
    deliver(sample_event("user.created", object=USER))
    login = sample_event("auth.login", object=LOGIN)
    for _ in range(3):
        assert deliver(login) == 200
    deliver(sample_event("auth.login", object=LOGIN))
    assert members(app) == [("Ada", 2)]


def test_what_is_not_signed_is_not_let_in(app: Flask, deliver: Deliver) -> None:
    delivery = sign_delivery(sample_event("user.created", object=USER), secret="whsec_somebody_elses")
    answer = app.test_client().post("/webhooks/envoyou", data=delivery.body, headers=delivery.headers)
    assert answer.status_code == 401
    assert members(app) == []
