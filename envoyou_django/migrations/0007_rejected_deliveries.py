"""The table of rejected deliveries: genuine ones that were answered 400."""

from django.db import migrations, models

import envoyou_django.fields
from envoyou_django.indices import CreateModelOnce


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("envoyou_django", "0006_processes_and_owed_handlers")]

    operations = [
        CreateModelOnce(
            name="RejectedDelivery",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    envoyou_django.fields.ExactCharField(
                        help_text="The Webhooks object that received it.", max_length=64, verbose_name="inbox"
                    ),
                ),
                ("tenant", envoyou_django.fields.ExactCharField(blank=True, max_length=255, verbose_name="tenant")),
                (
                    "digest",
                    envoyou_django.fields.ExactCharField(
                        help_text="SHA-256 of the body.", max_length=64, verbose_name="digest"
                    ),
                ),
                ("reason", models.CharField(max_length=64, verbose_name="reason")),
                ("error", models.TextField(verbose_name="error")),
                (
                    "headers",
                    models.TextField(
                        help_text="What verification reads, the signature included.", verbose_name="headers"
                    ),
                ),
                ("received_at", envoyou_django.fields.UtcDateTimeField(verbose_name="received at")),
                ("object_key", envoyou_django.fields.ExactCharField(blank=True, max_length=255, verbose_name="object")),
                ("size", models.PositiveBigIntegerField(help_text="Bytes of the body.", verbose_name="size")),
                ("body", models.BinaryField(help_text="The verified bytes, exactly as received.", verbose_name="body")),
            ],
            options={
                "verbose_name": "rejected delivery",
                "verbose_name_plural": "rejected deliveries",
                "db_table": "envoyou_rejected_delivery",
                "permissions": [("retry_rejecteddelivery", "Can retry rejected delivery")],
                "constraints": [
                    models.UniqueConstraint(fields=("name", "tenant", "digest"), name="envoyou_rejected_delivery_key")
                ],
            },
        ),
    ]
