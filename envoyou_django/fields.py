"""Columns that mean the same in every database and under every setting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import models
from django.utils import timezone

__all__ = ["ExactCharField", "UtcDateTimeField", "stored_moment"]


class ExactCharField(models.CharField):
    """Text that is compared by its bytes, as PostgreSQL and SQLite do by themselves and MariaDB and MySQL do not.

    Their usual collations take `evt_a`, `EVT_A` and `evt_a ` for one.
    """

    def db_parameters(self, connection: Any) -> dict[str, Any]:
        """See `django.db.models.Field.db_parameters`."""
        parameters: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
        return parameters


def stored_moment(stored: object) -> datetime:
    """A time as a `UtcDateTimeField` reads it.

    Raises:
        TypeError: it is not one; SQLite keeps anything that somebody wrote there.
    """
    if not isinstance(stored, datetime):
        raise TypeError("a stored time must be a datetime")
    return stored


class UtcDateTimeField(models.DateTimeField):
    """A moment: always an aware datetime in UTC, whatever `USE_TZ` and `TIME_ZONE` are.

    With `USE_TZ = False` Django would store local times, of which one hour a year comes twice: leases and retries
    cannot go by them. A naive value that is given is taken in the current time zone.
    """

    def get_prep_value(self, value: Any) -> Any:
        """See `django.db.models.Field.get_prep_value`."""
        value = self.to_python(value)
        if isinstance(value, datetime) and timezone.is_naive(value):
            value = timezone.make_aware(value)
        return super().get_prep_value(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """See `django.db.models.Field.get_db_prep_value`."""
        if not prepared:
            value = self.get_prep_value(value)
        if isinstance(value, datetime) and not settings.USE_TZ and not connection.features.supports_timezones:
            value = timezone.make_naive(value, UTC)
        return connection.ops.adapt_datetimefield_value(value)

    def from_db_value(self, value: datetime | None, expression: object, connection: Any) -> datetime | None:
        """See `django.db.models.Field.from_db_value`."""
        if value is None:
            return None
        if timezone.is_naive(value):
            # Where the column itself has a time zone, Django has had it converted to the connection's.
            zone = ZoneInfo(connection.timezone_name) if connection.features.supports_timezones else UTC
            value = value.replace(tzinfo=zone)
        return value.astimezone(UTC)
