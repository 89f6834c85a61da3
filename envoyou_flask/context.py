"""The application context of handlers: they run outside any request, and want `current_app` all the same."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from weakref import ReferenceType, WeakKeyDictionary, ref

from flask import Flask, current_app, has_app_context

from envoyou_core import Webhooks

__all__ = ["handle_within"]

Apps = list[ReferenceType[Flask]]

# Weakly, so that the apps and inboxes of a test suite go when their tests are over.
_apps_of: WeakKeyDictionary[Webhooks, Apps] = WeakKeyDictionary()


def handle_within(app: Flask, webhooks: Webhooks) -> None:
    """Run the handlers of `webhooks` in the context of `app`.

    Of several apps, it is the one that is current where the work is done, as in a test's `with app.app_context()`, and
    else the last one: an app factory makes one app after the other for one `Webhooks`.
    """
    apps = _apps_of.get(webhooks)
    if apps is None:
        apps = _apps_of[webhooks] = []
        webhooks.surround(lambda: _context(apps))
    apps.append(ref(app))


def _context(apps: Apps) -> AbstractContextManager[object]:
    living = [app for reference in apps if (app := reference()) is not None]
    if not living:
        return nullcontext()
    app = next((app for app in living if has_app_context() and app == current_app), living[-1])
    return app.app_context()
