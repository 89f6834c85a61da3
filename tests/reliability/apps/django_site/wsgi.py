from __future__ import annotations

import os

from crash_points import AfterTheAnswer
from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "django_site.settings"

application = AfterTheAnswer(get_wsgi_application())
