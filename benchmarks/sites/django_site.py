import os

from django.core.wsgi import get_wsgi_application

from benchmarks.sites.variants import LEAN, PATH, VARIANT
from envoyou_core.wsgi import webhooks_entry

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.sites.django_settings"
app = get_wsgi_application()

if VARIANT == LEAN:
    from envoyou_django import webhooks

    app = webhooks_entry(app, webhooks, path=PATH)
