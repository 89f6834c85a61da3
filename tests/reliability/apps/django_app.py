"""A Django project with a spool. As a program, it creates the tables."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from sqlalchemy import make_url

FOLDER = Path(os.environ["EFFECTS_FOLDER"])

url = make_url(os.environ["ENVOYOU_INBOX"])
settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["envoyou_django"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.database,
            "USER": url.username,
            "PASSWORD": url.password or "",
            "HOST": url.host or url.query["host"],
            "PORT": url.port or "",
            "OPTIONS": {"connect_timeout": 2},
        }
    },
    ENVOYOU={
        "WEBHOOK_SECRET": os.environ["ENVOYOU_WEBHOOK_SECRET"],
        "LEASE": os.environ["ENVOYOU_LEASE"],
        "SPOOL": os.environ["ENVOYOU_SPOOL"],
    },
)

from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402

from envoyou_core import Event  # noqa: E402

application = get_wsgi_application()

from envoyou_django import webhooks  # noqa: E402

urlpatterns = [
    path("webhooks/envoyou", include("envoyou_django.urls")),
    path("health", lambda request: HttpResponse("well")),
]


@webhooks.on("user.*")
def leave_row(event: Event) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO effects (event_id) VALUES (%s)", [event.id])


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
