"""The tables of roll-ups and of the states of alerts."""

from django.db import migrations, models

import envoyou_django.fields
from envoyou_django.indices import CreateModelOnce


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("envoyou_django", "0009_headers")]

    operations = [
        CreateModelOnce(
            name="RollUp",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", envoyou_django.fields.ExactCharField(max_length=64, verbose_name="inbox")),
                (
                    "period",
                    models.PositiveIntegerField(
                        help_text="Seconds: a minute, an hour or a day.", verbose_name="period"
                    ),
                ),
                ("start", envoyou_django.fields.UtcDateTimeField(verbose_name="start")),
                ("measure", envoyou_django.fields.ExactCharField(max_length=32, verbose_name="measure")),
                ("event_type", envoyou_django.fields.ExactCharField(blank=True, max_length=255, verbose_name="type")),
                ("handler", envoyou_django.fields.ExactCharField(blank=True, max_length=255, verbose_name="handler")),
                ("number", models.BigIntegerField(verbose_name="number")),
                (
                    "total",
                    models.BigIntegerField(
                        help_text="Microseconds, over the counts in the buckets.", verbose_name="total"
                    ),
                ),
                *((f"b{bucket:02}", models.BigIntegerField(verbose_name=f"b{bucket:02}")) for bucket in range(18)),
            ],
            options={
                "db_table": "envoyou_rollup",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("name", "period", "start", "measure", "event_type", "handler"),
                        name="envoyou_rollup_key",
                    ),
                ],
            },
        ),
        CreateModelOnce(
            name="AlertStates",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", envoyou_django.fields.ExactCharField(max_length=64, verbose_name="inbox")),
                ("states", models.TextField(verbose_name="states")),
                ("token", models.CharField(blank=True, max_length=32, null=True, verbose_name="token")),
                ("due_at", envoyou_django.fields.UtcDateTimeField(verbose_name="due at")),
            ],
            options={
                "db_table": "envoyou_alert_states",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("name",), name="envoyou_alert_states_name"),
                ],
            },
        ),
    ]
