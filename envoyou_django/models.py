"""The table of events: the inbox, and the memory of what was handled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import models, router, transaction
from django.db.models import Value
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from envoyou_core import Event
from envoyou_core.adapter import MAX_NAME_LENGTH, decode_history, event_of, object_key, record_of, requeued_progress
from envoyou_core.inbox import REQUEUABLE, Status
from envoyou_django import conf
from envoyou_django.fields import ExactCharField, UtcDateTimeField, stored_moment
from envoyou_django.inbox.cleanup import SCRUBBED_BY, scrubbed, update_each

__all__ = [
    "MAX_NAME",
    "TABLES",
    "ClaimLock",
    "ObjectMark",
    "PausedSubject",
    "ProcessedEvent",
    "ProcessedEventManager",
    "ProcessedEventQuerySet",
]

EVENTS, MARKS, PAUSED, CLAIM_LOCKS = TABLES = (
    "envoyou_processed_event",
    "envoyou_object_mark",
    "envoyou_paused_subject",
    "envoyou_claim_lock",
)

MAX_NAME = 64
"""Characters that the name of an inbox may have."""

REQUEUE_BATCH = 500
"""Rows changed in one transaction, so that acceptance never waits long behind it."""


class ProcessedEventQuerySet(models.QuerySet):
    """Events: which there are, and what can be done to several of them."""

    def due(self, now: datetime | None = None) -> ProcessedEventQuerySet:
        """Those that a worker may take at `now`, what came due first, first; a lease that has run out is due, too.

        Some may have to wait all the same, for their order or because they are paused.
        """
        return self.filter(due_at__lte=now or _now()).order_by("due_at", "pk")

    def dead(self) -> ProcessedEventQuerySet:
        """Those that were given up, and wait for somebody to look at them."""
        return self.filter(status=Status.DEAD)

    def for_object(self, object_id: str) -> ProcessedEventQuerySet:
        """Those about an object: `data.object.id`, or else its `user_id`."""
        return self.filter(object_key=object_key(object_id))

    def requeue(self, now: datetime | None = None) -> int:
        """Bring those that are failed, ignored or dead back to `received`, due at `now`; returns how many.

        All attempts are before them again. Handlers that were done stay done. What has lost its payload stays.
        """
        rows = self._to_write().requeuable()
        alias = rows.db
        found = list(rows.order_by("pk").values("pk", "status", "attempts", "progress"))
        requeued = 0
        for start in range(0, len(found), REQUEUE_BATCH):
            with transaction.atomic(using=alias):
                for row in found[start : start + REQUEUE_BATCH]:
                    requeued += self._requeue_one(alias, row, now or _now())
        return requeued

    def make_due(self, now: datetime | None = None) -> int:
        """Have those that wait for a later time tried at `now`; returns how many. Their attempts count as before."""
        now = now or _now()
        changed: int = self._to_write().waiting().order_by().filter(due_at__gt=now).update(due_at=now)
        return changed

    def mark_dead(self, now: datetime | None = None) -> int:
        """Give up those that are unfinished and in nobody's hands at `now`; returns how many.

        What a worker holds is left to it. One whose lease has run out, and that comes back, cannot settle any more.
        """
        now = now or _now()
        rows = self._to_write().unheld(now).order_by("pk")
        dead = {
            "status": Status.DEAD.value,
            "due_at": None,
            "lease_token": None,
            "settled_at": now,
            "last_error": Coalesce("last_error", Value("marked dead by hand")),
        }
        # As whoever settles an event deletes its payload where that was asked for.
        marked = update_each(rows.filter(erase_requested_at__isnull=True).only("pk"), lambda _: dead)
        return marked + update_each(
            rows.filter(erase_requested_at__isnull=False).only(*SCRUBBED_BY),
            lambda row: dead | scrubbed(row.event, decode_history(row.history), now),
        )

    def requeuable(self) -> ProcessedEventQuerySet:
        """Those that `requeue` brings back."""
        return self.filter(status__in=REQUEUABLE, scrubbed_at__isnull=True)

    def waiting(self) -> ProcessedEventQuerySet:
        """Those that are to be tried, and that nobody tries yet."""
        return self.filter(status__in=[Status.RECEIVED, Status.FAILED])

    def unheld(self, now: datetime | None = None) -> ProcessedEventQuerySet:
        """The unfinished ones that no worker has in hand: they wait, or the lease on them has run out."""
        return self.waiting() | self.filter(status=Status.PROCESSING, due_at__lte=now or _now())

    def _to_write(self) -> ProcessedEventQuerySet:
        return self.using(self._db or router.db_for_write(self.model))

    def _requeue_one(self, alias: str, row: Mapping[str, Any], now: datetime) -> int:
        # Looked up without a lock, so it is changed only where nothing has happened to it since: a transaction that
        # reads first and writes later fails at once on SQLite where another writer came between.
        unchanged = ProcessedEvent.objects.using(alias).filter(
            pk=row["pk"], status=row["status"], scrubbed_at__isnull=True
        )
        # On SQLite, anything may stand in place of a number.
        if isinstance(row["attempts"], int):
            unchanged = unchanged.filter(attempts=row["attempts"])
        progress = requeued_progress(row["progress"])
        changed: int = unchanged.update(
            status=Status.RECEIVED.value,
            attempts=0,
            crashes=0,
            **({} if progress is None else {"progress": progress}),
            due_at=now,
            settled_at=None,
        )
        return changed


def _now() -> datetime:
    return datetime.fromtimestamp(conf.clock()(), UTC)


_ManagerOfThem: Any = models.Manager.from_queryset(ProcessedEventQuerySet)


class ProcessedEventManager(_ManagerOfThem):
    """Reads where the routers have the events written: a replica may not have heard yet of what became of them."""

    def get_queryset(self) -> ProcessedEventQuerySet:
        """See `django.db.models.Manager.get_queryset`."""
        rows: ProcessedEventQuerySet = super().get_queryset()
        return rows if self._db else rows.using(router.db_for_write(self.model, **self._hints))


class ProcessedEvent(models.Model):
    """One event: accepted, and by now handled, waiting, or given up.

    With the inbox's name and the tenant, the event's id is its key: the unique constraint decides what is a duplicate.
    """

    name = ExactCharField(_("inbox"), max_length=MAX_NAME, help_text=_("Which Webhooks it was delivered to."))
    tenant = ExactCharField(_("tenant"), max_length=255, blank=True)
    event_id = ExactCharField(_("event id"), max_length=255)
    type = ExactCharField(_("type"), max_length=255)
    created = models.BigIntegerField(_("created"), help_text=_("Epoch seconds, as sent."))
    webhook_id = models.CharField(_("webhook id"), max_length=255, null=True, blank=True)
    body = models.BinaryField(_("body"), help_text=_("The verified bytes, exactly as they came."))
    status = models.CharField(
        _("status"), max_length=16, choices=[(status.value, _(status.value)) for status in Status]
    )
    attempts = models.PositiveIntegerField(_("attempts"), help_text=_("How many attempts have ended."))
    crashes = models.PositiveIntegerField(_("crashes"), help_text=_("How many workers died over it."))
    progress = models.JSONField(_("progress"), help_text=_("The handlers that will not run again."))
    received_at = UtcDateTimeField(_("received at"))
    due_at = UtcDateTimeField(
        _("due at"), null=True, blank=True, help_text=_("When it is tried, or when its worker's lease ends.")
    )
    lease_token = models.CharField(_("lease token"), max_length=32, null=True, blank=True)
    settled_at = UtcDateTimeField(_("settled at"), null=True, blank=True)
    last_error = models.TextField(_("last error"), null=True, blank=True)
    # Every column from here on may be left out: processes of an earlier release go on inserting without them.
    object_key = ExactCharField(
        _("object"),
        max_length=MAX_NAME_LENGTH,
        null=True,
        blank=True,
        help_text=_("What it is about: nothing where it is empty; not looked up yet where there is none."),
    )
    history = models.TextField(_("history"), null=True, blank=True)
    scrubbed_at = UtcDateTimeField(
        _("scrubbed at"), null=True, blank=True, help_text=_("When the payload was deleted.")
    )
    erase_requested_at = UtcDateTimeField(
        _("erase requested at"), null=True, blank=True, help_text=_("The payload is deleted when it is finished.")
    )

    objects = ProcessedEventManager()

    class Meta:
        """Its table, its key, and what it is asked for."""

        db_table = EVENTS
        verbose_name = _("event")
        verbose_name_plural = _("events")
        permissions = [
            ("requeue_processedevent", _("Can requeue event")),
            ("mark_dead_processedevent", _("Can mark event dead")),
        ]
        # The id before the tenant, so that an event is found by its id alone, too.
        constraints = [models.UniqueConstraint(fields=["name", "event_id", "tenant"], name="envoyou_event_key")]
        indexes = [
            # What is claimed. Finished rows are not in it, so it stays small however many there are.
            models.Index(fields=["name", "due_at"], name="envoyou_due", condition=models.Q(due_at__isnull=False)),
            # What is pruned.
            models.Index(fields=["name", "status", "settled_at"], name="envoyou_settled"),
            # What the admin lists, newest first.
            models.Index(fields=["status", "-id"], name="envoyou_status"),
            models.Index(fields=["type", "-id"], name="envoyou_type"),
            # What it searches, and what its chart counts.
            models.Index(fields=["event_id"], name="envoyou_event_id"),
            models.Index(fields=["received_at"], name="envoyou_received"),
            # What holds another one back. As small as the first. The object stands in front, or a database that knows
            # nothing of the table yet could take it for what is due.
            models.Index(
                fields=["object_key", "tenant", "name", "created"],
                name="envoyou_order",
                condition=models.Q(due_at__isnull=False),
            ),
            # What there is about an object, and what nobody has looked into yet.
            models.Index(fields=["object_key", "name", "created"], name="envoyou_object"),
            # What is scrubbed. What has been is not in it, or each time all of it would be gone through.
            models.Index(
                fields=["name", "status", "scrubbed_at", "settled_at"],
                name="envoyou_unscrubbed",
                condition=models.Q(settled_at__isnull=False, scrubbed_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_id} ({self.type})"

    @property
    def event(self) -> Event:
        """The event, read from the bytes that came.

        If they are unreadable, it has the id and type of the columns, and access to its `data.object` raises
        `InvalidPayloadError`.
        """
        return event_of(self)[0]

    @property
    def unreadable(self) -> str | None:
        """Why this release cannot read the row, else `None`."""
        return record_of(self, moment=stored_moment).unreadable


class ObjectMark(models.Model):
    """How new the newest event was that was applied to an object and has been pruned since."""

    name = ExactCharField(_("inbox"), max_length=MAX_NAME)
    tenant = ExactCharField(_("tenant"), max_length=255, blank=True)
    object_key = ExactCharField(_("object"), max_length=MAX_NAME_LENGTH)
    created = models.BigIntegerField(_("created"), help_text=_("Epoch seconds, as sent."))

    class Meta:
        """Its table, its key, and what is pruned of it."""

        db_table = MARKS
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name", "tenant", "object_key"], name="envoyou_mark")]
        indexes = [models.Index(fields=["name", "created"], name="envoyou_mark_created")]

    def __str__(self) -> str:
        return f"{self.object_key} ({self.created})"


class PausedSubject(models.Model):
    """Something that workers leave alone until it is resumed."""

    name = ExactCharField(_("inbox"), max_length=MAX_NAME)
    # Without a key, for it may be of any length: twice is as good as once.
    subject = models.TextField(_("subject"))

    class Meta:
        """Its table, and what is asked of it."""

        db_table = PAUSED
        default_permissions = ()
        indexes = [models.Index(fields=["name"], name="envoyou_paused_name")]

    def __str__(self) -> str:
        return self.subject


class ClaimLock(models.Model):
    """A row for each inbox, for databases that have no other lock by which one claim waits for another."""

    name = ExactCharField(_("inbox"), max_length=MAX_NAME)

    class Meta:
        """Its table and its key."""

        db_table = CLAIM_LOCKS
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name"], name="envoyou_claim_lock_name")]

    def __str__(self) -> str:
        return self.name
