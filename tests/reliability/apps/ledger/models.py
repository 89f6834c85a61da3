from __future__ import annotations

from django.db import models


class Effect(models.Model):
    """A row that shares the inbox's transaction."""

    event_id = models.CharField(max_length=255)

    class Meta:
        db_table = "effects"
