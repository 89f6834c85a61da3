"""The tables of the inbox: events, their order, pauses and locks."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db import models, router
from django.utils.translation import gettext_lazy as _

from envoyou_core import Event
from envoyou_core.adapter import (
    MAX_NAME_LENGTH,
    event_of,
    object_key,
    record_of,
)
from envoyou_core.inbox import REQUEUABLE, Status, check_handler_names
from envoyou_django import conf
from envoyou_django.fields import ExactCharField, UtcDateTimeField, stored_moment
from envoyou_django.inbox.bulk import MAKE_DUE, MARK_DEAD, Operation, change_in_batches, requeueing

__all__ = [
    "BUCKET_COLUMNS",
    "MAX_NAME",
    "TABLES",
    "AlertStates",
    "ClaimLock",
    "HandlerSetRow",
    "ObjectMark",
    "PausedSubject",
    "ProcessRow",
    "ProcessedEvent",
    "ProcessedEventManager",
    "ProcessedEventQuerySet",
    "RejectedDelivery",
    "RollUp",
]

TABLES = (
    "envoyou_processed_event",
    "envoyou_object_mark",
    "envoyou_paused_subject",
    "envoyou_claim_lock",
    "envoyou_rejected_delivery",
    "envoyou_handler_set",
    "envoyou_process",
    "envoyou_rollup",
    "envoyou_alert_states",
)
"""The names of the tables."""

EVENTS, MARKS, PAUSED, CLAIM_LOCKS, REJECTED, HANDLER_SETS, PROCESSES, ROLLUPS, ALERT_STATES = TABLES

MAX_NAME = 64
"""The maximum length of an inbox's name."""


class ProcessedEventQuerySet(models.QuerySet):
    """Queries for events, and operations on several events."""

    def due(self, now: datetime | None = None) -> ProcessedEventQuerySet:
        """Return the events that are due at `now`, the longest due first, including those with an expired lease.

        Some of them may still have to wait, because they are paused or for an earlier event.
        """
        return self.filter(due_at__lte=now or conf.current_time()).order_by("due_at", "pk")

    def dead(self) -> ProcessedEventQuerySet:
        """Return the dead events."""
        return self.filter(status=Status.DEAD)

    def for_object(self, object_id: str) -> ProcessedEventQuerySet:
        """Return the events about an object: its `id`, or else its `user_id`."""
        return self.filter(object_key=object_key(object_id))

    def requeue(self, now: datetime | None = None, *, drop_handlers: Collection[str] = ()) -> int:
        """Requeue the failed, ignored and dead events, due at `now`.

        They get all their attempts again. Handlers that have succeeded do not run again. Events whose payload was
        deleted are not requeued.

        Args:
            now: when the events become due.
            drop_handlers: names of handlers that will not run for these events. Only events that owe one of them are
                requeued.

        Returns:
            The number of requeued events.

        Raises:
            ValueError: `drop_handlers` is not a list.
        """
        check_handler_names(drop_handlers)
        return self._change(requeueing(drop_handlers), now)

    def make_due(self, now: datetime | None = None) -> int:
        """Make the events that wait for a later attempt due at `now`, and return their number."""
        return self._change(MAKE_DUE, now)

    def mark_dead(self, now: datetime | None = None) -> int:
        """Mark the unfinished events dead that no worker holds at `now`, and return their number.

        A worker whose lease has expired can no longer settle the event.
        """
        return self._change(MARK_DEAD, now)

    # So that a template cannot call them.
    requeue.alters_data = make_due.alters_data = mark_dead.alters_data = True  # type: ignore[attr-defined]

    def requeuable(self) -> ProcessedEventQuerySet:
        """Return the events whose status `requeue` changes."""
        return self.filter(status__in=REQUEUABLE, scrubbed_at__isnull=True)

    def awaiting(self) -> ProcessedEventQuerySet:
        """Return the events that wait for a process that has a certain handler."""
        # By status, because a release that does not know the column leaves it as it is when it claims and settles.
        return self.waiting().filter(waits_for__isnull=False)

    def waiting(self) -> ProcessedEventQuerySet:
        """Return the events that wait for an attempt."""
        return self.filter(status__in=[Status.RECEIVED, Status.FAILED])

    def unheld(self, now: datetime | None = None) -> ProcessedEventQuerySet:
        """Return the unfinished events that no worker holds: they wait, or their lease has expired."""
        return self.waiting() | self.filter(status=Status.PROCESSING, due_at__lte=now or conf.current_time())

    def _for_writing(self) -> ProcessedEventQuerySet:
        return self.using(self._db or router.db_for_write(self.model))

    def _change(self, operation: Operation, now: datetime | None) -> int:
        batches = change_in_batches(self._for_writing(), operation, now or conf.current_time())
        return sum(len(batch.rows) for batch in batches)


class PrimaryDatabaseManager(models.Manager):
    """Reads from the database that rows are written to, because a replica may lag behind."""

    def get_queryset(self) -> Any:
        """Return the rows of the database for writing, unless another one was chosen."""
        rows = super().get_queryset()
        return rows if self._db else rows.using(router.db_for_write(self.model, **self._hints))


_EventManager: Any = PrimaryDatabaseManager.from_queryset(ProcessedEventQuerySet)


class ProcessedEventManager(_EventManager):
    """The manager of events; see `ProcessedEventQuerySet`."""


class ProcessedEvent(models.Model):
    """One accepted event.

    Its id, the inbox's name and the tenant are unique together: this constraint detects duplicates.
    """

    name = ExactCharField(_("inbox"), max_length=MAX_NAME, help_text=_("The Webhooks object that received the event."))
    tenant = ExactCharField(_("tenant"), max_length=255, blank=True)
    event_id = ExactCharField(_("event id"), max_length=255)
    type = ExactCharField(_("type"), max_length=255)
    created = models.BigIntegerField(_("created"), help_text="Epoch seconds, as sent.")
    webhook_id = models.CharField(_("webhook id"), max_length=255, null=True, blank=True)
    body = models.BinaryField("body", help_text="The verified bytes, exactly as received.")
    status = models.CharField(
        _("status"), max_length=16, choices=[(status.value, _(status.value)) for status in Status]
    )
    attempts = models.PositiveIntegerField(_("attempts"), help_text=_("Number of ended attempts."))
    crashes = models.PositiveIntegerField(_("crashes"), help_text=_("Number of worker crashes."))
    progress = models.JSONField("progress", help_text="The handlers that will not run again.")
    received_at = UtcDateTimeField(_("received at"))
    due_at = UtcDateTimeField(
        _("due at"),
        null=True,
        blank=True,
        help_text="When it is due, or when the worker's lease expires.",
    )
    lease_token = models.CharField("lease token", max_length=32, null=True, blank=True)
    settled_at = UtcDateTimeField(_("settled at"), null=True, blank=True)
    last_error = models.TextField(_("last error"), null=True, blank=True)
    # All columns below are nullable, because processes of earlier releases insert rows without them.
    object_key = ExactCharField(
        _("object"),
        max_length=MAX_NAME_LENGTH,
        null=True,
        blank=True,
        help_text="The id of its object: empty if it has none, NULL if not determined yet.",
    )
    history = models.TextField("history", null=True, blank=True)
    scrubbed_at = UtcDateTimeField("scrubbed at", null=True, blank=True, help_text="When the payload was deleted.")
    erase_requested_at = UtcDateTimeField(
        "erase requested at",
        null=True,
        blank=True,
        help_text="The payload is deleted when the event is settled.",
    )
    accepted_set = models.CharField("accepted set", max_length=16, null=True, blank=True)
    claimed_set = models.CharField("claimed set", max_length=16, null=True, blank=True)
    owed = models.TextField("owed", null=True, blank=True, help_text="The handlers that still have to run.")
    waits_for = ExactCharField(
        _("waits for"),
        max_length=255,
        null=True,
        blank=True,
        help_text=_("The handler that no process at hand has."),
    )
    waits_since = UtcDateTimeField("waits since", null=True, blank=True)
    headers = models.TextField(
        "headers", null=True, blank=True, help_text="JSON: the headers of the request that were kept."
    )
    traceparent = models.CharField(
        "trace context", max_length=64, null=True, blank=True, help_text="The trace context of the acceptance."
    )

    objects = ProcessedEventManager()

    class Meta:
        """Table, constraints and indexes."""

        db_table = EVENTS
        verbose_name = _("event")
        verbose_name_plural = _("events")
        # Events are neither added nor changed nor deleted by hand.
        default_permissions = ("view",)
        permissions = [
            ("requeue_processedevent", "Can requeue event"),
            ("mark_dead_processedevent", "Can mark event dead"),
        ]
        # The id precedes the tenant, so that the index also serves queries by id only.
        constraints = [models.UniqueConstraint(fields=["name", "event_id", "tenant"], name="envoyou_event_key")]
        indexes = [
            # Claiming. Partial, so that it stays small however many finished events there are.
            models.Index(fields=["name", "due_at"], name="envoyou_due", condition=models.Q(due_at__isnull=False)),
            # Pruning.
            models.Index(fields=["name", "status", "settled_at"], name="envoyou_settled"),
            # The list in the admin, newest first.
            models.Index(fields=["status", "-id"], name="envoyou_status"),
            models.Index(fields=["type", "-id"], name="envoyou_type"),
            # The search and the chart in the admin.
            models.Index(fields=["event_id"], name="envoyou_event_id"),
            models.Index(fields=["received_at"], name="envoyou_received"),
            # Ordered delivery. Partial as well. The object comes first, because a database without statistics might
            # otherwise use this index for claiming.
            models.Index(
                fields=["object_key", "tenant", "name", "created"],
                name="envoyou_order",
                condition=models.Q(due_at__isnull=False),
            ),
            # Events that wait for a handler. Partial, because hardly any does.
            models.Index(
                fields=["name", "waits_for"], name="envoyou_waits", condition=models.Q(waits_for__isnull=False)
            ),
            # Events of an object, and events whose object has not been determined yet.
            models.Index(fields=["object_key", "name", "created"], name="envoyou_object"),
            # Scrubbing. Scrubbed events are excluded, so that they are not scanned each time.
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
        """The event, decoded from the body.

        If the body is unreadable, the event has the id and the type of the columns, and access to its `data.object`
        raises `InvalidPayloadError`.
        """
        return event_of(self)[0]

    @property
    def unreadable(self) -> str | None:
        """Why this release cannot read the row; `None` if it can."""
        return record_of(self, moment=stored_moment).unreadable


class ObjectMark(models.Model):
    """The time of the newest event of an object that was applied and has been pruned since."""

    name = ExactCharField("inbox", max_length=MAX_NAME)
    tenant = ExactCharField("tenant", max_length=255, blank=True)
    object_key = ExactCharField("object", max_length=MAX_NAME_LENGTH)
    created = models.BigIntegerField("created", help_text="Epoch seconds, as sent.")

    class Meta:
        """Table, constraint and index."""

        db_table = MARKS
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name", "tenant", "object_key"], name="envoyou_mark")]
        indexes = [models.Index(fields=["name", "created"], name="envoyou_mark_created")]

    def __str__(self) -> str:
        return f"{self.object_key} ({self.created})"


class PausedSubject(models.Model):
    """An event type or a handler that is paused."""

    name = ExactCharField("inbox", max_length=MAX_NAME)
    # Not unique, because its length is unbounded; duplicates do no harm.
    subject = models.TextField("subject")

    class Meta:
        """Table and index."""

        db_table = PAUSED
        default_permissions = ()
        indexes = [models.Index(fields=["name"], name="envoyou_paused_name")]

    def __str__(self) -> str:
        return self.subject


class ClaimLock(models.Model):
    """One row for each inbox, locked while claiming on databases without advisory locks."""

    name = ExactCharField("inbox", max_length=MAX_NAME)

    class Meta:
        """Table and constraint."""

        db_table = CLAIM_LOCKS
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name"], name="envoyou_claim_lock_name")]

    def __str__(self) -> str:
        return self.name


class RejectedDelivery(models.Model):
    """A genuine delivery that was answered 400, kept to be retried with `webhooks.retry_rejected(delivery.pk)`.

    A redelivery of the same body is kept once. The number, size and age of these rows are limited.
    """

    name = ExactCharField(_("inbox"), max_length=MAX_NAME, help_text=_("The Webhooks object that received it."))
    tenant = ExactCharField(_("tenant"), max_length=255, blank=True)
    digest = ExactCharField("digest", max_length=64, help_text="SHA-256 of the body.")
    reason = models.CharField(_("reason"), max_length=64)
    error = models.TextField(_("error"))
    headers = models.TextField("headers", help_text="What verification reads, the signature included.")
    received_at = UtcDateTimeField(_("received at"))
    object_key = ExactCharField(_("object"), max_length=MAX_NAME_LENGTH, blank=True)
    size = models.PositiveBigIntegerField(_("size"), help_text=_("Bytes of the body."))
    body = models.BinaryField("body", help_text="The verified bytes, exactly as received.")

    objects = PrimaryDatabaseManager()

    class Meta:
        """Table, constraint and permission."""

        db_table = REJECTED
        verbose_name = _("rejected delivery")
        verbose_name_plural = _("rejected deliveries")
        default_permissions = ("view", "delete")
        permissions = [("retry_rejecteddelivery", "Can retry rejected delivery")]
        constraints = [
            models.UniqueConstraint(fields=["name", "tenant", "digest"], name="envoyou_rejected_delivery_key")
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.reason})"


class HandlerSetRow(models.Model):
    """The names and patterns of the handlers of some process; it never changes."""

    name = ExactCharField("inbox", max_length=MAX_NAME)
    set_id = models.CharField("set", max_length=16)
    handlers = models.TextField("handlers")
    seen_at = UtcDateTimeField("seen at")

    class Meta:
        """Table and constraint."""

        db_table = HANDLER_SETS
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name", "set_id"], name="envoyou_handler_set_key")]

    def __str__(self) -> str:
        return self.set_id


class ProcessRow(models.Model):
    """A process that uses the inbox."""

    name = ExactCharField("inbox", max_length=MAX_NAME)
    process_id = models.CharField("process", max_length=32)
    kind = models.CharField("kind", max_length=16)
    handler_set = models.CharField("handler set", max_length=16)
    host = models.CharField("host", max_length=255)
    pid = models.BigIntegerField("process id")
    version = models.CharField("version", max_length=64)
    started_at = UtcDateTimeField("started at")
    seen_at = UtcDateTimeField("seen at")
    boot_id = models.CharField("boot", max_length=64, null=True, blank=True)
    pid_namespace = models.CharField("namespace of the process id", max_length=64, null=True, blank=True)
    pid_started = models.BigIntegerField("start of the process", null=True, blank=True)

    class Meta:
        """Table and constraint."""

        db_table = PROCESSES
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name", "process_id"], name="envoyou_process_key")]

    def __str__(self) -> str:
        return f"{self.host} {self.pid} ({self.kind})"


BUCKET_COLUMNS = tuple(f"b{number:02}" for number in range(18))
"""The columns of a roll-up's histogram."""


class RollUp(models.Model):
    """What was counted in one minute, hour or day; see `webhooks.analytics`."""

    name = ExactCharField("inbox", max_length=MAX_NAME)
    period = models.PositiveIntegerField("period", help_text="Seconds: a minute, an hour or a day.")
    start = UtcDateTimeField("start")
    measure = ExactCharField("measure", max_length=32)
    event_type = ExactCharField("type", max_length=255, blank=True)
    handler = ExactCharField("handler", max_length=255, blank=True)
    number = models.BigIntegerField("number")
    total = models.BigIntegerField("total", help_text="Microseconds, over the counts in the buckets.")

    class Meta:
        """Table and constraint."""

        db_table = ROLLUPS
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["name", "period", "start", "measure", "event_type", "handler"], name="envoyou_rollup_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.measure} {self.start} ({self.number})"


for _bucket in BUCKET_COLUMNS:
    RollUp.add_to_class(_bucket, models.BigIntegerField(_bucket))


class AlertStates(models.Model):
    """The states of all alert rules of an inbox, the process that evaluates them, and until when."""

    name = ExactCharField("inbox", max_length=MAX_NAME)
    states = models.TextField("states")
    token = models.CharField("token", max_length=32, null=True, blank=True)
    due_at = UtcDateTimeField("due at")

    class Meta:
        """Table and constraint."""

        db_table = ALERT_STATES
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["name"], name="envoyou_alert_states_name")]

    def __str__(self) -> str:
        return self.name
