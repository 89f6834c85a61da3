"""Only the permissions that have an effect. Those that exist already stay with their groups and users."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("envoyou_django", "0007_rejected_deliveries")]

    operations = [
        migrations.AlterModelOptions(
            name="processedevent",
            options={
                "default_permissions": ("view",),
                "permissions": [
                    ("requeue_processedevent", "Can requeue event"),
                    ("mark_dead_processedevent", "Can mark event dead"),
                ],
                "verbose_name": "event",
                "verbose_name_plural": "events",
            },
        ),
        migrations.AlterModelOptions(
            name="rejecteddelivery",
            options={
                "default_permissions": ("view", "delete"),
                "permissions": [("retry_rejecteddelivery", "Can retry rejected delivery")],
                "verbose_name": "rejected delivery",
                "verbose_name_plural": "rejected deliveries",
            },
        ),
    ]
