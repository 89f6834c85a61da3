"""The project of `django_settings`, with the admin."""

from benchmarks.sites.django_settings import *  # noqa: F403
from benchmarks.sites.django_settings import INSTALLED_APPS

INSTALLED_APPS = ["django.contrib.admin", "django.contrib.staticfiles", *INSTALLED_APPS]
STATIC_URL = "static/"
ROOT_URLCONF = "benchmarks.sites.admin_urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
