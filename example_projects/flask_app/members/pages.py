"""The page that lists the members."""

from __future__ import annotations

from flask import Blueprint, render_template

from members.models import Member, db
from members.webhooks import envoyou

pages = Blueprint("pages", __name__)


@pages.get("/")
def members() -> str:
    found = db.session.scalars(db.select(Member).order_by(Member.id)).all()
    return render_template("members.html", members=found, stats=envoyou.webhooks.inbox.stats())
