"""A Django project on the database that the test names, set up as the documentation says."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs, urlsplit

from envoyou_core.settings import SETTING_NAMES


def database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path[1:], "OPTIONS": options}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or parse_qs(parts.query)["host"][0],
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": None,
        "OPTIONS": {"connect_timeout": 2},
    }


SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["envoyou_django", "ledger"]
ROOT_URLCONF = "django_site.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": database(os.environ["ENVOYOU_INBOX"])}
ENVOYOU = {name: os.environ[f"ENVOYOU_{name}"] for name in SETTING_NAMES - {"INBOX"} if f"ENVOYOU_{name}" in os.environ}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"envoyou": {"handlers": ["console"], "level": "INFO"}},
}
