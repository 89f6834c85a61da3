"""The users and their logins."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A user of EnvoyOU, or a member of staff without an account there."""

    envoyou_id = models.CharField("EnvoyOU id", max_length=255, unique=True, null=True, blank=True)
    is_verified = models.BooleanField("verified", default=False)


class Login(models.Model):
    """A login or a failed login at EnvoyOU."""

    # By which staff find the event that says so.
    event_id = models.CharField(max_length=255, unique=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="logins")
    at = models.DateTimeField(db_index=True)
    succeeded = models.BooleanField()
    ip_address = models.GenericIPAddressField("IP address", null=True)
    country = models.CharField(max_length=2, blank=True)

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.user} at {self.at:%Y-%m-%d %H:%M}"
