"""The project of the Django tests, for a server in a process of its own."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[4]))

from tests.django.settings import *  # noqa: F403

WSGI_APPLICATION = "staged.wsgi"
