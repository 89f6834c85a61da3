"""What the admin asks for: the right to give events up, and the indices of its search and its chart."""

from django.db import migrations, models

from envoyou_django.indices import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("envoyou_django", "0003_objects_and_indexes")]

    operations = [
        migrations.AlterModelOptions(
            name="processedevent",
            options={
                "verbose_name": "event",
                "verbose_name_plural": "events",
                "permissions": [
                    ("requeue_processedevent", "Can requeue event"),
                    ("mark_dead_processedevent", "Can mark event dead"),
                ],
            },
        ),
        AddIndexOnline("processedevent", models.Index(fields=["event_id"], name="envoyou_event_id")),
        AddIndexOnline("processedevent", models.Index(fields=["received_at"], name="envoyou_received")),
    ]
