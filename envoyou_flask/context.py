"""The application context of handlers: they run outside any request, and want `current_app` all the same."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from weakref import ReferenceType, WeakKeyDictionary, ref

from flask import Flask

from envoyou_core import Webhooks

__all__ = ["handle_within"]

_app_of: WeakKeyDictionary[Webhooks, ReferenceType[Flask]] = WeakKeyDictionary()


def handle_within(app: Flask, webhooks: Webhooks) -> None:
    """Run the handlers of `webhooks` in the context of `app`.

    Of several apps, it is the last one's: an app factory makes one app after the other for one `Webhooks`.
    """

    def context() -> AbstractContextManager[object]:
        latest = _app_of[webhooks]()
        return nullcontext() if latest is None else latest.app_context()

    if webhooks not in _app_of:
        webhooks.surround(context)
    # Weakly, so that the apps and inboxes of a test suite go when their tests are over.
    _app_of[webhooks] = ref(app)
