from __future__ import annotations

import os

SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["envoyou_django", "shop"]
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
ROOT_URLCONF = "django_project.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ENVOYOU = {
    "WEBHOOK_SECRET": os.environ["ENVOYOU_WEBHOOK_SECRET"],
    "LEASE": os.environ["ENVOYOU_LEASE"],
    "SHUTDOWN_TIMEOUT": os.environ["ENVOYOU_SHUTDOWN_TIMEOUT"],
}
