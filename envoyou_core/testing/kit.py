"""The test kit behind the pytest fixtures: delivers signed events to an application and runs its handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, Unpack

from envoyou_core.errors import ConfigurationError
from envoyou_core.event import Event
from envoyou_core.observability import Notice
from envoyou_core.reception.signature import Secret
from envoyou_core.testing.accepted import AcceptedEvent, AcceptedEvents
from envoyou_core.testing.clients import DeliveryClient
from envoyou_core.testing.deliveries import SAMPLE_WEBHOOK_ID, Delivery, sign_delivery
from envoyou_core.testing.factories import EventFields, make_event
from envoyou_core.testing.results import ACCEPTED, DeliveryResult, result_of
from envoyou_core.webhooks import Webhooks
from envoyou_core.worker.frames import without_callers

__all__ = ["AsyncDeliver", "Deliver", "UnhandledEventsWarning", "WebhooksKit"]


NO_HANDLERS: Final = "no handler is registered; import the module that registers them"
DRAIN: Final = "call envoyou_webhooks.drain(raise_errors=True), or post with envoyou_deliver, which runs the handlers"


class UnhandledEventsWarning(UserWarning):
    """A test has ended with events that were accepted and never handled, so none of their handlers was tested."""

    def __init__(self, waiting: Sequence[AcceptedEvent], *, has_no_handlers: bool) -> None:
        events = "1 event was accepted" if len(waiting) == 1 else f"{len(waiting)} events were accepted"
        named = ", ".join(f"{event.type} {event.event_id}" for event in waiting[:3])
        more = ", ..." if len(waiting) > 3 else ""
        remedy = NO_HANDLERS if has_no_handlers else DRAIN
        super().__init__(
            f"{events} but not handled when the test ended, so no handler has run ({named}{more}): {remedy}"
        )


class WebhooksKit:
    """Delivers events to the `Webhooks` object of an application, which is isolated meanwhile.

    Args:
        current_webhooks: returns the object. A test may replace it, by other settings.
        client: posts the deliveries.
        path: where to.
        others: further objects of the application, whose workers must not run either.
    """

    def __init__(
        self,
        current_webhooks: Callable[[], Webhooks],
        client: DeliveryClient,
        path: str,
        *,
        others: Iterable[Webhooks] = (),
    ) -> None:
        self._others = tuple(others)
        self._current_webhooks = current_webhooks
        self._isolated: list[Webhooks] = []
        self._stack = ExitStack()
        self.client = client
        self.path = path
        self.events = AcceptedEvents()
        self.has_raised = False

    @property
    def webhooks(self) -> Webhooks:
        """The application's `Webhooks` object, isolated."""
        webhooks = self._current_webhooks()
        if webhooks not in self._isolated:
            self._stack.enter_context(webhooks.isolated(self.events))
            self._isolated.append(webhooks)
        return webhooks

    @contextmanager
    def running(self) -> Iterator[WebhooksKit]:
        """Isolate the object until the block ends."""
        with self._stack:
            _ = self.webhooks
            for webhooks in self._others:
                self._stack.enter_context(webhooks.isolated(_ignore))
            yield self

    def unhandled(self) -> UnhandledEventsWarning | None:
        """Return the warning about accepted events that were never handled, if there are any."""
        # After an error, the test has stopped before it could handle them.
        waiting = [] if self.has_raised else self.events.waiting
        return UnhandledEventsWarning(waiting, has_no_handlers=self.events.has_no_handlers) if waiting else None

    def new_event(self, type: str | Event, changes: Mapping[str, Any]) -> Event:
        """Return the event to deliver.

        Raises:
            TypeError: an event was given together with changes, or a change is misspelt.
        """
        __tracebackhide__ = True
        if isinstance(type, Event):
            if changes:
                names = ", ".join(changes)
                raise TypeError(f"the event is given, so {names} cannot change it: pass them to make_event(...)")
            return type
        created = changes.get("created")
        return make_event(type, **{**changes, "created": int(self.webhooks.clock()) if created is None else created})

    def sign(self, event: Event, secret: Secret | None) -> Delivery:
        """Sign an event as the endpoint's deliveries are signed.

        Raises:
            ConfigurationError: the endpoint has no secret.
        """
        webhook_id = event.webhook_id or SAMPLE_WEBHOOK_ID
        if secret is None:
            try:
                secret = self.webhooks.newest_secret(webhook_id)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{error}: name an endpoint of the test's with webhook_id=..., or a secret with secret=..."
                ) from None
        forms = self.webhooks.verification_policy.signed_content
        delivery = sign_delivery(
            event,
            secret=secret,
            timestamp=int(self.webhooks.clock()),
            signed_content="raw" if "raw" in forms else "canonical",
        )
        return Delivery({**delivery.headers, **self.webhooks.endpoint_header_values}, delivery.body)

    def result(self, event: Event, response: Any, refusals_before: int) -> DeliveryResult:
        """Describe what came of a delivery."""
        status = self.client.status_of(response)
        outcome = self.events.get(event.id) if status == ACCEPTED else None
        notes = []
        if outcome is not None and outcome.waiting and self.events.has_no_handlers:
            notes.append(NO_HANDLERS)
        refusals = self.events.refusals[refusals_before:]
        return result_of(event, status, response, self.path, outcome, refusals, notes)

    def should_run_handlers(self, response: Any, run_handlers: bool) -> bool:
        """Whether to run handlers after this response."""
        return run_handlers and self.client.status_of(response) == ACCEPTED


class Deliver:
    """Delivers one event, signed, through the application's own route, and runs the handlers before it returns.

    The fixture `envoyou_deliver`.

    Examples:
        assert envoyou_deliver("user.created", email="ada@example.com").processed
    """

    def __init__(self, kit: WebhooksKit) -> None:
        self._kit = kit

    def __call__(
        self,
        event: str | Event = "user.created",
        /,
        *,
        raise_errors: bool = True,
        run_handlers: bool = True,
        secret: Secret | None = None,
        event_id: str | None = None,
        created: int | None = None,
        webhook_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
        **fields: Unpack[EventFields],
    ) -> DeliveryResult:
        """Deliver an event.

        Args:
            event: the type of a new event, or an event that exists; to deliver it again is a redelivery.
            raise_errors: raise what a handler raises. If not, the event has failed, as in production.
            run_handlers: whether to handle what is due. If not, call `envoyou_webhooks.drain(raise_errors=True)`.
            secret: what to sign with; by default, the newest secret of the endpoint.
            event_id: the id of a new event; `id` is that of its object.
            created: epoch seconds; by default now.
            webhook_id: the endpoint's id.
            extra: fields of the object that EnvoyOU's guide does not have.
            fields: fields of the object. See `make_event`.

        Raises:
            Exception: what a handler has raised; an `ExceptionGroup` if several have.
            TypeError: a field is misspelt.
            ConfigurationError: it is called in an async test, or the endpoint has no secret.
        """
        __tracebackhide__ = True
        kit = self._kit
        if _is_in_event_loop():
            raise ConfigurationError("in an async test, use `await envoyou_adeliver(...)`")
        changes = _changes(event_id, created, webhook_id, extra, fields)
        sent = kit.new_event(event, changes)
        refusals = len(kit.events.refusals)
        try:
            with kit.client.around():
                response = kit.client.post(kit.path, kit.sign(sent, secret))
                if kit.should_run_handlers(response, run_handlers):
                    kit.client.drain(kit.webhooks, raise_errors=raise_errors)
        except Exception as error:
            kit.has_raised = True
            raise error.with_traceback(_frames_of_application(error))  # noqa: B904 - it is the same exception
        return kit.result(sent, response, refusals)

    def __repr__(self) -> str:
        return "envoyou_deliver"


class AsyncDeliver:
    """Delivers one event in an async test, and runs the handlers on the test's event loop before it returns.

    The fixture `envoyou_adeliver`.

    Examples:
        assert (await envoyou_adeliver("user.created", email="ada@example.com")).processed
    """

    def __init__(self, kit: WebhooksKit) -> None:
        self._kit = kit

    async def __call__(
        self,
        event: str | Event = "user.created",
        /,
        *,
        raise_errors: bool = True,
        run_handlers: bool = True,
        secret: Secret | None = None,
        event_id: str | None = None,
        created: int | None = None,
        webhook_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
        **fields: Unpack[EventFields],
    ) -> DeliveryResult:
        """Deliver an event. The parameters and errors are those of `Deliver`."""
        __tracebackhide__ = True
        kit = self._kit
        changes = _changes(event_id, created, webhook_id, extra, fields)
        sent = kit.new_event(event, changes)
        refusals = len(kit.events.refusals)
        try:
            delivery = await kit.client.asign(lambda: kit.sign(sent, secret))
            response = await kit.client.apost(kit.path, delivery)
            if kit.should_run_handlers(response, run_handlers):
                await kit.client.adrain(kit.webhooks, raise_errors=raise_errors)
        except Exception as error:
            kit.has_raised = True
            raise error.with_traceback(_frames_of_application(error))  # noqa: B904 - it is the same exception
        return kit.result(sent, response, refusals)

    def __repr__(self) -> str:
        return "envoyou_adeliver"


def _changes(
    event_id: str | None,
    created: int | None,
    webhook_id: str | None,
    extra: Mapping[str, Any] | None,
    fields: EventFields,
) -> dict[str, Any]:
    """Return the arguments of `make_event` that were given."""
    given = {"event_id": event_id, "created": created, "webhook_id": webhook_id, "extra": extra}
    return {**{name: value for name, value in given.items() if value is not None}, **fields}


def _frames_of_application(error: Exception) -> TracebackType | None:
    """Return the frames that matter to the developer: not those of this library; none if the message says it all."""
    frames = without_callers(error.__traceback__)
    is_explained = isinstance(error, ConfigurationError | ExceptionGroup) or hasattr(error, "__notes__")
    # Without a frame of the application, nothing was left out.
    return None if is_explained and frames is error.__traceback__ else frames


def _ignore(notice: Notice) -> None: ...


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
