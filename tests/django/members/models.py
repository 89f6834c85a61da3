from django.db import models


class Member(models.Model):
    """What a handler of a Django project would keep in step with the platform."""

    name = models.CharField(max_length=100)
