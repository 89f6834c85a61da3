from __future__ import annotations

import os

from crash_points import AfterTheAnswerASGI
from django.core.asgi import get_asgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "django_site.settings"

application = AfterTheAnswerASGI(get_asgi_application())
