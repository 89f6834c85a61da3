"""Flask-Migrate next to the inbox's tables, which it must not mistake for deleted models."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.documentation.pages import Page

PATIENCE = 60

SITE = """
from flask import Flask
from flask_migrate import init, revision, upgrade
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from envoyou_flask import Envoyou
from on_the_page import migrate


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Account(Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)


app = Flask("app")
app.config.from_mapping(SQLALCHEMY_DATABASE_URI="sqlite:///app.db", ENVOYOU_WEBHOOK_SECRET="whsec_test")
db.init_app(app)
Envoyou(app, db=db)
migrate.init_app(app, db)
with app.app_context():
    app.extensions["envoyou"]["envoyou"].inbox.open()
    init()
    revision(message="the first", autogenerate=True)
    upgrade()
    revision(message="nothing new", autogenerate=True)
    print(*inspect(db.engine).get_table_names())
# `env.py` configures logging with `fileConfig`, which disables existing loggers by default.
app.test_client().get("/webhooks/envoyou")
"""


def test_a_migration_of_the_app_does_not_change_the_inbox(tmp_path):
    blocks = Page("docs/flask-guide.md").blocks("Flask-SQLAlchemy: exactly once")
    (shown,) = [block.code for block in blocks if "Migrate(" in block.code]
    (tmp_path / "on_the_page.py").write_text(shown)
    (tmp_path / "site_with_models.py").write_text(SITE)
    command = [sys.executable, "site_with_models.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr
    assert "answered 405: method_not_allowed" in ran.stderr
    assert {"account", "envoyou_inbox"} <= set(ran.stdout.splitlines()[-1].split())
    # The second migration is empty. The first creates its table, and its downgrade drops it.
    (written,) = [file.read_text() for file in (tmp_path / "migrations" / "versions").glob("*.py")]
    assert re.findall(r"op\.(\w+)\('(\w+)'", written) == [("create_table", "account"), ("drop_table", "account")]
