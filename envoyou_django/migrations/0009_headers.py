"""The headers of the request that are kept with an event. Processes of the earlier release leave them out."""

from django.db import migrations, models

from envoyou_django.indices import AddFieldOnce


class Migration(migrations.Migration):
    dependencies = [("envoyou_django", "0008_permissions")]

    operations = [
        AddFieldOnce(
            model_name="processedevent",
            name="headers",
            field=models.TextField(
                blank=True,
                help_text="JSON: the headers of the request that were kept.",
                null=True,
                verbose_name="headers",
            ),
        ),
    ]
