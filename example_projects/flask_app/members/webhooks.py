"""What happens when EnvoyOU tells us something.

The handlers that keep the table of members share the transaction that records them as done: a login is counted once,
even if the process is killed in the middle of it. The one that writes a letter does not, for a letter cannot be undone.
"""

from __future__ import annotations

from flask import current_app

from envoyou_core import Event, Login, User
from envoyou_flask import Envoyou
from members.models import Member, db

envoyou = Envoyou(db=db)


@envoyou.on("user.created", "user.updated", "user.verified", stale="skip")
def keep_member(event: Event) -> None:
    user = event.data.as_type(User)
    db.session.merge(Member(id=user.id, name=user.name, email=user.email))


@envoyou.on("user.deleted", stale="skip")
def remove_member(event: Event) -> None:
    user = event.data.as_type(User)
    db.session.execute(db.delete(Member).where(Member.id == user.id))


@envoyou.on("auth.login", ordered=True)
def count_login(event: Event) -> None:
    login = event.data.as_type(Login)
    member = db.session.get(Member, login.user_id)
    if member is not None:
        member.logins += 1
        member.last_login = event.created_at.replace(tzinfo=None)


@envoyou.on("user.created", atomic=False)
def write_letter(event: Event) -> None:
    current_app.logger.warning("a letter of welcome to %s", event.data.as_type(User).email)


@envoyou.on_dead
def alert(event: Event, error: str | None) -> None:
    current_app.logger.error("somebody has to look after %s: %s", event.id, error)
