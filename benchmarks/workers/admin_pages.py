"""Fills the inbox of a Django project, or asks for a page of its admin again and again, as a superuser.

python -m benchmarks.workers.admin_pages fill 10000
python -m benchmarks.workers.admin_pages get 20 "?status__exact=processed"
"""

import os
import statistics
import sys
import time

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.sites.admin_settings"
django.setup()

from django.contrib.auth.models import User  # noqa: E402  # needs the settings
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import reverse  # noqa: E402

from envoyou_core.inbox import NewEvent, Settlement, Status  # noqa: E402
from envoyou_core.testing import sample_event  # noqa: E402
from envoyou_django import webhooks  # noqa: E402
from envoyou_django.models import ProcessedEvent  # noqa: E402

VALUES = {"event_id": "'evt_old_' || n", "object_key": "'user_' || (n / 10)"}
"""What differs between the rows."""

NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})",
    "postgresql": "WITH numbers(n) AS (SELECT generate_series(1, {rows}))",
}


def fill(rows: int) -> None:
    """Create the tables and an event, and copy its row."""
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("admin")
    webhooks.inbox.add(NewEvent(sample_event())).result()
    (claim,) = webhooks.inbox.claim(1, 60.0)
    webhooks.inbox.settle(claim, Settlement(Status.PROCESSED, attempts=1))
    meta = ProcessedEvent._meta  # noqa: SLF001  # Django documents it
    columns = [field.column for field in meta.concrete_fields if not field.primary_key]
    selected = ", ".join(VALUES.get(column, f"e.{column}") for column in columns)
    table = meta.db_table
    numbers = NUMBERS[connection.vendor].format(rows=rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) {numbers} SELECT {selected} FROM numbers, {table} AS e"
        )
        cursor.execute(f"ANALYZE {table}")


def get(times: int, query: str) -> None:
    """Print the median of the milliseconds that the page took."""
    client = Client()
    client.force_login(User.objects.get())
    url = reverse("admin:envoyou_django_processedevent_changelist") + query
    taken = []
    for _ in range(times + 1):
        started = time.perf_counter()
        response = client.get(url)
        taken.append(time.perf_counter() - started)
        if response.status_code != 200:
            raise SystemExit(f"expected a 200, got {response.status_code}")
    # The first one loads the templates.
    print(statistics.median(taken[1:]) * 1000)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]))
    else:
        get(int(sys.argv[2]), sys.argv[3])
