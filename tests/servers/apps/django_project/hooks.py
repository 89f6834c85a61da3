"""The webhooks of the Django project, for a process that serves nothing."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_project.settings")
django.setup()

from envoyou_django import webhooks  # noqa: E402

__all__ = ["webhooks"]
