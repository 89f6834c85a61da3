"""The trace context of the acceptance. Processes of the earlier release leave it out."""

from django.db import migrations, models

from envoyou_django.indices import AddFieldOnce


class Migration(migrations.Migration):
    dependencies = [("envoyou_django", "0010_rollups_and_alerts")]

    operations = [
        AddFieldOnce(
            model_name="processedevent",
            name="traceparent",
            field=models.CharField(
                blank=True,
                help_text="The trace context of the acceptance.",
                max_length=64,
                null=True,
                verbose_name="trace context",
            ),
        ),
    ]
