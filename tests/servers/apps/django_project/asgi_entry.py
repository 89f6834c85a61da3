from __future__ import annotations

from django_project.asgi import application as django_application
from envoyou_core.asgi import webhooks_entry
from envoyou_django import webhooks

application = webhooks_entry(django_application, webhooks, path="/webhooks/envoyou")
