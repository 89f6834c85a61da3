"""The settings that `startproject` writes, as far as they matter to a request, with the inbox."""

import os
from urllib.parse import urlsplit

from benchmarks.sites.variants import SECRET

SECRET_KEY = "benchmark"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.sites.django_urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "envoyou_django",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ENVOYOU = {"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual"}

_url = os.environ["BENCHMARK_DATABASE"]
_parts = urlsplit(_url)
if _parts.scheme == "sqlite":
    _database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _url.removeprefix("sqlite:///"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
else:
    _database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _parts.path.lstrip("/"),
        "HOST": _parts.hostname,
        "PORT": _parts.port or "",
        "USER": _parts.username or "",
        "PASSWORD": _parts.password or "",
    }
DATABASES = {"default": {**_database, "CONN_MAX_AGE": None}}
