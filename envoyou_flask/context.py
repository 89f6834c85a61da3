"""The application context of handlers, which run outside requests and use `current_app`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from weakref import ReferenceType, WeakKeyDictionary, ref

from flask import Flask, current_app, has_app_context

from envoyou_core import Webhooks

__all__ = ["handle_within"]

Apps = list[ReferenceType[Flask]]

# Weak references, so that the apps and inboxes of a test suite are collected after their tests.
_apps_of: WeakKeyDictionary[Webhooks, Apps] = WeakKeyDictionary()


def handle_within(app: Flask, webhooks: Webhooks) -> None:
    """Run the handlers of `webhooks` in the context of `app`.

    If several apps share `webhooks`, the current app is used if it is one of them, as in a test's
    `with app.app_context()`, else the last one: an app factory makes one app after the other.
    """
    apps = _apps_of.get(webhooks)
    if apps is None:
        apps = _apps_of[webhooks] = []
        webhooks.add_context(lambda: _context(apps))
    apps.append(ref(app))


def _context(apps: Apps) -> AbstractContextManager[object]:
    alive = [app for reference in apps if (app := reference()) is not None]
    if not alive:
        return nullcontext()
    app = next((app for app in alive if has_app_context() and app == current_app), alive[-1])
    return app.app_context()
