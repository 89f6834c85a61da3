from __future__ import annotations

import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "django_site.settings"
django.setup()

from envoyou_django import webhooks  # noqa: E402

webhooks.run_worker()
