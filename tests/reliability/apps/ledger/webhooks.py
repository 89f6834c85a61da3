"""The same two kinds of effects as in the other apps, with the ORM."""

from __future__ import annotations

import time

import crash_points
from django.db.backends.signals import connection_created
from effects import HANDLERS, TRANSACTIONAL_SECONDS, bad_handlers, in_flight, plain

from envoyou_core import Event
from envoyou_django import webhooks
from ledger.models import Effect

crash_points.install(webhooks)
crash_points.install_in_django(connection_created)


def transactional(event: Event) -> None:
    with in_flight():
        Effect.objects.create(event_id=event.id)
        crash_points.crash_point("in a handler")
        time.sleep(TRANSACTIONAL_SECONDS)


for name in HANDLERS:
    webhooks.on("user.*", name=name, atomic=name == "transactional")(
        {"plain": plain, "transactional": transactional}[name]
    )
webhooks.include(bad_handlers)
