"""Model fields that behave alike on every database and with every setting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import models
from django.utils import timezone

__all__ = ["ExactCharField", "UtcDateTimeField", "stored_moment"]


class ExactCharField(models.CharField):
    """Text that is compared byte by byte, which is the default on PostgreSQL and SQLite but not on MariaDB and MySQL.

    With their default collations `evt_a`, `EVT_A` and `evt_a ` are equal.
    """

    def db_parameters(self, connection: Any) -> dict[str, Any]:
        parameters: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
        return parameters


def stored_moment(stored: object) -> datetime:
    """Return the time that a `UtcDateTimeField` has loaded.

    Raises:
        TypeError: the value is not a datetime. SQLite stores values of any type in a column.
    """
    if not isinstance(stored, datetime):
        raise TypeError("a stored time must be a datetime")
    return stored


class UtcDateTimeField(models.DateTimeField):
    """An aware datetime in UTC, regardless of `USE_TZ` and `TIME_ZONE`.

    With `USE_TZ = False` Django stores local times. They repeat for an hour each year, so leases and retries cannot
    rely on them. A naive value is interpreted in the current time zone.
    """

    def get_prep_value(self, value: Any) -> Any:
        value = self.to_python(value)
        if isinstance(value, datetime) and timezone.is_naive(value):
            value = timezone.make_aware(value)
        return super().get_prep_value(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if not prepared:
            value = self.get_prep_value(value)
        if isinstance(value, datetime) and not settings.USE_TZ and not connection.features.supports_timezones:
            value = timezone.make_naive(value, UTC)
        return connection.ops.adapt_datetimefield_value(value)

    def from_db_value(self, value: datetime | None, expression: object, connection: Any) -> datetime | None:
        if value is None:
            return None
        if timezone.is_naive(value):
            # If the column has a time zone, the database has converted the value to the connection's time zone.
            zone = ZoneInfo(connection.timezone_name) if connection.features.supports_timezones else UTC
            value = value.replace(tzinfo=zone)
        return value.astimezone(UTC)
