"""Runs the quickstarts of the README, each in a new virtual environment."""

import contextlib
import json
import sqlite3

import pytest

from tests.adapters import chosen
from tests.quickstart.pages import QUICKSTARTS, README

pytestmark = pytest.mark.slow

EMAIL = "john.doe@example.com"


def welcomed(reader):
    return reader.shows(f"Welcome, {EMAIL}\n")


def has_account(reader):
    with contextlib.closing(sqlite3.connect(reader.folder / "db.sqlite3")) as database:
        return database.execute("SELECT username FROM auth_user WHERE email = ?", [EMAIL]).fetchall() == [("user_123",)]


EFFECT = {"django": has_account, "flask": welcomed, "fastapi": welcomed, "starlette": welcomed}


@pytest.mark.parametrize("framework", chosen())
def test_the_quickstart_receives_an_event(reader, framework):
    reader.follow(README.blocks(f"Quickstart: {QUICKSTARTS[framework]}"))
    effect = EFFECT[framework]
    printed = reader.follow(README.blocks("Send it an event"))
    assert printed.startswith("200 ")
    assert json.loads(printed.removeprefix("200 ")) == {"received": True}
    assert reader.wait_for("the handler's effect", lambda: effect(reader))
    package = reader.run(["python", "-c", "import envoyou_core; print(envoyou_core.__file__)"]).strip()
    assert str(reader.folder.parent) in package, "the installed wheel must be what runs"
