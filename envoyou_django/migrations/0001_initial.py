"""The table of events."""

from django.db import migrations, models

import envoyou_django.fields


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="ProcessedEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    envoyou_django.fields.ExactCharField(
                        help_text="The Webhooks object that received the event.",
                        max_length=64,
                        verbose_name="inbox",
                    ),
                ),
                ("tenant", envoyou_django.fields.ExactCharField(blank=True, max_length=255, verbose_name="tenant")),
                ("event_id", envoyou_django.fields.ExactCharField(max_length=255, verbose_name="event id")),
                ("type", envoyou_django.fields.ExactCharField(max_length=255, verbose_name="type")),
                ("created", models.BigIntegerField(help_text="Epoch seconds, as sent.", verbose_name="created")),
                ("webhook_id", models.CharField(blank=True, max_length=255, null=True, verbose_name="webhook id")),
                (
                    "body",
                    models.BinaryField(help_text="The verified bytes, exactly as received.", verbose_name="body"),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("received", "received"),
                            ("processing", "processing"),
                            ("processed", "processed"),
                            ("ignored", "ignored"),
                            ("failed", "failed"),
                            ("dead", "dead"),
                        ],
                        max_length=16,
                        verbose_name="status",
                    ),
                ),
                (
                    "attempts",
                    models.PositiveIntegerField(help_text="Number of ended attempts.", verbose_name="attempts"),
                ),
                (
                    "crashes",
                    models.PositiveIntegerField(
                        help_text="Number of worker crashes.",
                        verbose_name="crashes",
                    ),
                ),
                (
                    "progress",
                    models.JSONField(help_text="The handlers that will not run again.", verbose_name="progress"),
                ),
                ("received_at", envoyou_django.fields.UtcDateTimeField(verbose_name="received at")),
                (
                    "due_at",
                    envoyou_django.fields.UtcDateTimeField(
                        blank=True,
                        help_text="When it is due, or when the worker's lease expires.",
                        null=True,
                        verbose_name="due at",
                    ),
                ),
                ("lease_token", models.CharField(blank=True, max_length=32, null=True, verbose_name="lease token")),
                (
                    "settled_at",
                    envoyou_django.fields.UtcDateTimeField(blank=True, null=True, verbose_name="settled at"),
                ),
                ("last_error", models.TextField(blank=True, null=True, verbose_name="last error")),
            ],
            options={
                "verbose_name": "event",
                "verbose_name_plural": "events",
                "db_table": "envoyou_processed_event",
                "permissions": [("requeue_processedevent", "Can requeue event")],
                "indexes": [
                    models.Index(
                        condition=models.Q(("due_at__isnull", False)), fields=["name", "due_at"], name="envoyou_due"
                    ),
                    models.Index(fields=["name", "status", "settled_at"], name="envoyou_settled"),
                    models.Index(fields=["status", "-id"], name="envoyou_status"),
                    models.Index(fields=["type", "-id"], name="envoyou_type"),
                ],
                "constraints": [models.UniqueConstraint(fields=("name", "tenant", "event_id"), name="envoyou_event")],
            },
        ),
    ]
