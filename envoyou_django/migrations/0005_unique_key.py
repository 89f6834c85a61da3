"""Reorders the unique key so that its index finds an event by its id alone."""

from django.db import migrations, models

from envoyou_django.indices import ReplaceUniqueKeyOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("envoyou_django", "0004_admin")]

    operations = [
        ReplaceUniqueKeyOnline(
            "processedevent",
            old=models.UniqueConstraint(fields=("name", "tenant", "event_id"), name="envoyou_event"),
            new=models.UniqueConstraint(fields=("name", "event_id", "tenant"), name="envoyou_event_key"),
        ),
    ]
