"""The project of the Django tests, for a server in a process of its own."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[4]))

from tests.django.settings import *  # noqa: F403

WSGI_APPLICATION = "staged.wsgi"

# The development server of Django 6.1 has its checks ask every database, before there is a stage to serve.
DATABASES = {alias: each for alias, each in DATABASES.items() if alias in {"default", "contract"}}  # noqa: F405
for each in DATABASES.values():
    each["NAME"] = ":memory:"
