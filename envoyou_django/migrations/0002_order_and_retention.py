"""What order, retention and history need.

Processes of the earlier release go on working beside it: they know none of the columns, and may leave them all out.
"""

from django.db import migrations, models

import envoyou_django.fields


class Migration(migrations.Migration):
    dependencies = [("envoyou_django", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="processedevent",
            name="object_key",
            field=envoyou_django.fields.ExactCharField(
                blank=True,
                help_text="The id of its object: empty if it has none, NULL if not determined yet.",
                max_length=255,
                null=True,
                verbose_name="object",
            ),
        ),
        migrations.AddField(
            model_name="processedevent",
            name="history",
            field=models.TextField(blank=True, null=True, verbose_name="history"),
        ),
        migrations.AddField(
            model_name="processedevent",
            name="scrubbed_at",
            field=envoyou_django.fields.UtcDateTimeField(
                blank=True, help_text="When the payload was deleted.", null=True, verbose_name="scrubbed at"
            ),
        ),
        migrations.AddField(
            model_name="processedevent",
            name="erase_requested_at",
            field=envoyou_django.fields.UtcDateTimeField(
                blank=True,
                help_text="The payload is deleted when the event is settled.",
                null=True,
                verbose_name="erase requested at",
            ),
        ),
        migrations.CreateModel(
            name="ObjectMark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", envoyou_django.fields.ExactCharField(max_length=64, verbose_name="inbox")),
                ("tenant", envoyou_django.fields.ExactCharField(blank=True, max_length=255, verbose_name="tenant")),
                ("object_key", envoyou_django.fields.ExactCharField(max_length=255, verbose_name="object")),
                ("created", models.BigIntegerField(help_text="Epoch seconds, as sent.", verbose_name="created")),
            ],
            options={
                "db_table": "envoyou_object_mark",
                "default_permissions": (),
                "indexes": [models.Index(fields=["name", "created"], name="envoyou_mark_created")],
                "constraints": [models.UniqueConstraint(fields=("name", "tenant", "object_key"), name="envoyou_mark")],
            },
        ),
        migrations.CreateModel(
            name="PausedSubject",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", envoyou_django.fields.ExactCharField(max_length=64, verbose_name="inbox")),
                ("subject", models.TextField(verbose_name="subject")),
            ],
            options={
                "db_table": "envoyou_paused_subject",
                "default_permissions": (),
                "indexes": [models.Index(fields=["name"], name="envoyou_paused_name")],
            },
        ),
        migrations.CreateModel(
            name="ClaimLock",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", envoyou_django.fields.ExactCharField(max_length=64, verbose_name="inbox")),
            ],
            options={
                "db_table": "envoyou_claim_lock",
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=("name",), name="envoyou_claim_lock_name")],
            },
        ),
    ]
