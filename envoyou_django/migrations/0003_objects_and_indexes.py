"""What the events that are there are about, and the indices of order and retention.

Not in one transaction, which would keep acceptance waiting until its end. Interrupted, it can be run again.
"""

from typing import Any

from django.db import migrations, models
from django.db.models import Max, Min

from envoyou_django.inbox.cleanup import fill_object_keys
from envoyou_django.indices import AddIndexOnline
from envoyou_django.migration_progress import with_progress

STRETCH = 1000
"""Rows that are gone through in one query, whatever is found in them."""


def fill(apps: Any, schema_editor: Any) -> None:
    rows = apps.get_model("envoyou_django", "ProcessedEvent").objects.using(schema_editor.connection.alias)
    ends = rows.aggregate(first=Min("pk"), last=Max("pk"))
    if ends["last"] is not None:
        starts = range(ends["first"], ends["last"] + 1, STRETCH)
        for start in with_progress(starts, len(starts), "Filling in the objects of events"):
            fill_object_keys(rows.filter(pk__gte=start, pk__lt=start + STRETCH))


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("envoyou_django", "0002_order_and_retention")]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
        AddIndexOnline(
            "processedevent",
            models.Index(
                condition=models.Q(("due_at__isnull", False)),
                fields=["object_key", "tenant", "name", "created"],
                name="envoyou_order",
            ),
        ),
        AddIndexOnline("processedevent", models.Index(fields=["object_key", "name", "created"], name="envoyou_object")),
        AddIndexOnline(
            "processedevent",
            models.Index(
                condition=models.Q(("scrubbed_at__isnull", True), ("settled_at__isnull", False)),
                fields=["name", "status", "scrubbed_at", "settled_at"],
                name="envoyou_unscrubbed",
            ),
        ),
    ]
