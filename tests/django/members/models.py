from django.db import models


class Member(models.Model):
    """What a handler of a Django project would keep in step with the platform."""

    name = models.CharField(max_length=100)


class Card(models.Model):
    """Of a member; that there is one is looked at when the transaction is committed, where the database can do that."""

    member = models.ForeignKey(Member, models.CASCADE)
