"""The processes and their handlers, and what an event owes.

Processes of the earlier release go on working beside it: they know none of the columns, and may leave them all out. Not
in one transaction, because an index is built. Interrupted, it can be run again.
"""

from django.db import migrations, models

import envoyou_django.fields
from envoyou_django.indices import AddFieldOnce, AddIndexOnline, CreateModelOnce


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("envoyou_django", "0005_unique_key")]

    operations = [
        CreateModelOnce(
            name="HandlerSetRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", envoyou_django.fields.ExactCharField(max_length=64, verbose_name="inbox")),
                ("set_id", models.CharField(max_length=16, verbose_name="set")),
                ("handlers", models.TextField(verbose_name="handlers")),
                ("seen_at", envoyou_django.fields.UtcDateTimeField(verbose_name="seen at")),
            ],
            options={
                "db_table": "envoyou_handler_set",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("name", "set_id"), name="envoyou_handler_set_key"),
                ],
            },
        ),
        CreateModelOnce(
            name="ProcessRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", envoyou_django.fields.ExactCharField(max_length=64, verbose_name="inbox")),
                ("process_id", models.CharField(max_length=32, verbose_name="process")),
                ("kind", models.CharField(max_length=16, verbose_name="kind")),
                ("handler_set", models.CharField(max_length=16, verbose_name="handler set")),
                ("host", models.CharField(max_length=255, verbose_name="host")),
                ("pid", models.BigIntegerField(verbose_name="process id")),
                ("version", models.CharField(max_length=64, verbose_name="version")),
                ("started_at", envoyou_django.fields.UtcDateTimeField(verbose_name="started at")),
                ("seen_at", envoyou_django.fields.UtcDateTimeField(verbose_name="seen at")),
                ("boot_id", models.CharField(blank=True, max_length=64, null=True, verbose_name="boot")),
                (
                    "pid_namespace",
                    models.CharField(blank=True, max_length=64, null=True, verbose_name="namespace of the process id"),
                ),
                ("pid_started", models.BigIntegerField(blank=True, null=True, verbose_name="start of the process")),
            ],
            options={
                "db_table": "envoyou_process",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("name", "process_id"), name="envoyou_process_key"),
                ],
            },
        ),
        AddFieldOnce(
            model_name="processedevent",
            name="accepted_set",
            field=models.CharField(blank=True, max_length=16, null=True, verbose_name="accepted set"),
        ),
        AddFieldOnce(
            model_name="processedevent",
            name="claimed_set",
            field=models.CharField(blank=True, max_length=16, null=True, verbose_name="claimed set"),
        ),
        AddFieldOnce(
            model_name="processedevent",
            name="owed",
            field=models.TextField(
                blank=True, help_text="The handlers that still have to run.", null=True, verbose_name="owed"
            ),
        ),
        AddFieldOnce(
            model_name="processedevent",
            name="waits_for",
            field=envoyou_django.fields.ExactCharField(
                blank=True,
                help_text="The handler that no process at hand has.",
                max_length=255,
                null=True,
                verbose_name="waits for",
            ),
        ),
        AddFieldOnce(
            model_name="processedevent",
            name="waits_since",
            field=envoyou_django.fields.UtcDateTimeField(blank=True, null=True, verbose_name="waits since"),
        ),
        AddIndexOnline(
            "processedevent",
            models.Index(
                condition=models.Q(("waits_for__isnull", False)), fields=["name", "waits_for"], name="envoyou_waits"
            ),
        ),
    ]
