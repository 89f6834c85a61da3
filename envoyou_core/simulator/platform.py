"""The platform: the management API and the sender, in a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from envoyou_core.errors import ConfigurationError, EnvoyouError, describe
from envoyou_core.event import EVENT_TYPES, Event
from envoyou_core.simulator.api import Api, WebhooksResource
from envoyou_core.simulator.api_errors import ERROR_FORMS, ErrorForm
from envoyou_core.simulator.control import ControlResource
from envoyou_core.simulator.database import Database
from envoyou_core.simulator.outbox import Attempt, Outbox
from envoyou_core.simulator.rate_limit import RateLimit
from envoyou_core.simulator.registry import Registry
from envoyou_core.simulator.sender import Sender
from envoyou_core.simulator.server import LOOPBACK, ApiServer, listen
from envoyou_core.simulator.transport import HttpTransport
from envoyou_core.simulator.trouble import Trouble
from envoyou_core.simulator.webhook import Webhook, changes_of
from envoyou_core.testing.deliveries import sample_event
from envoyou_core.validation import check_count, check_seconds, is_number

__all__ = ["Platform"]

TEST_API_KEY: Final = "test_api_key"
API: Final = "v1"
CONTROL: Final = "_simulator"
MAX_PORT: Final = 65_535
MAX_COUNT: Final = 100_000
"""The events of one call, which are held in memory."""


class Platform:
    """A local EnvoyOU platform: `with Platform() as platform:` runs it in a thread.

    Clients use the management API at `base_url`. Events that `send` creates are delivered to the webhooks that are
    registered there or with `register`, signed and repeated as the guide says. See the guide, "Webhook Management" and
    "Retry Policy".

    Args:
        api_key: the key that clients must send. Never a real one.
        port: on the loopback address; 0 takes a free one.
        database: a file that keeps webhooks, events and attempts; in memory by default.
        trouble: what the platform does wrong.
        rate_limit: the requests to the management API that are answered in a minute.
        error_form: the form of the API's errors, `flat` or `nested`.
        bare_lists: whether the API answers a list as an array instead of an object with `items`.
        loopback_only: whether deliveries to other than loopback addresses are refused.
        timeout: the seconds after which a delivery without an answer has failed.
        concurrency: the maximum number of deliveries at a time; with 1 they keep their order, unless one fails.
        on_attempt: called with each attempt, in the platform's thread; it must not block.
        clock: returns epoch seconds.

    Raises:
        ConfigurationError: an argument is invalid, or the database cannot be opened.
    """

    def __init__(
        self,
        *,
        api_key: str = TEST_API_KEY,
        port: int = 0,
        database: str | Path | None = None,
        trouble: Trouble | None = None,
        rate_limit: int = 600,
        error_form: ErrorForm = "flat",
        bare_lists: bool = False,
        loopback_only: bool = True,
        timeout: float = 10.0,
        concurrency: int = 8,
        on_attempt: Callable[[Attempt], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check_key(api_key)
        if error_form not in ERROR_FORMS:
            raise ConfigurationError(f"error_form must be one of {', '.join(ERROR_FORMS)}, got {error_form!r}")
        if not (is_number(port) and isinstance(port, int) and 0 <= port <= MAX_PORT):
            raise ConfigurationError(f"port must be an integer from 0 to {MAX_PORT}, got {port!r}")
        check_count("rate_limit", rate_limit)
        check_count("concurrency", concurrency)
        check_seconds("timeout", timeout, minimum=0.0)
        self.api_key = api_key
        self._port = port
        self._trouble = trouble or Trouble()
        self._clock = clock
        self._on_attempt = on_attempt
        self._concurrency = concurrency
        self._timeout = timeout
        self._loopback_only = loopback_only
        self._changed = threading.Condition()
        self._started: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: Sender | None = None
        self._stopping = asyncio.Event()
        self._database = Database(database)
        self._registry = Registry(self._database, clock)
        self._outbox = Outbox(self._database, self._trouble)
        self._api = Api(
            api_key=api_key,
            resources={
                API: WebhooksResource(self._registry, bare_lists=bare_lists),
                CONTROL: ControlResource(self),
            },
            rate_limit=RateLimit(rate_limit, clock),
            limited=frozenset({API}),
            error_form=error_form,
            clock=clock,
        )

    @property
    def base_url(self) -> str:
        """The base URL of the management API, such as `http://127.0.0.1:8787/v1`."""
        return f"http://{LOOPBACK}:{self._port}/{API}"

    @property
    def control_url(self) -> str:
        """The base URL of what other processes use to send events and read attempts."""
        return f"http://{LOOPBACK}:{self._port}/{CONTROL}"

    @property
    def is_running(self) -> bool:
        """Whether the API is served and events are delivered."""
        return self._thread is not None and self._thread.is_alive()

    def register(
        self, url: str, events: Sequence[str] = EVENT_TYPES, *, webhook_id: str | None = None, **settings: Any
    ) -> Webhook:
        """Register a webhook, as a client of the management API would.

        Args:
            url: where events are delivered.
            events: the types of the events that are delivered; by default all.
            webhook_id: its id, if the application knows the endpoint by one; a random one by default.
            settings: `secret`, `active`, `retry_policy` and `headers`, as in the API.

        Raises:
            ConfigurationError: a setting is invalid.
        """
        checked = changes_of({"url": url, "events": events, **settings}, is_new=True)
        return self._registry.create(checked, webhook_id=webhook_id)

    def send(
        self,
        event_type: str = "user.created",
        *,
        object: Mapping[str, Any] | None = None,
        count: int = 1,
        created: int | None = None,
    ) -> list[str]:
        """Create events, deliver them to the webhooks that receive this type, and return the ids of the events.

        Args:
            event_type: one of the guide's.
            object: the `data.object` of each event; by default a sample for the type.
            count: the number of events, up to 100,000.
            created: when they were created, in epoch seconds; now by default.

        Raises:
            ConfigurationError: the type is unknown, or the count is out of range.
            InvalidPayloadError: the object or the time does not make a valid event.
        """
        if event_type not in EVENT_TYPES:
            raise ConfigurationError(f"event_type must be one of {', '.join(EVENT_TYPES)}, got {event_type!r}")
        check_count("count", count)
        if count > MAX_COUNT:
            raise ConfigurationError(f"count must be at most {MAX_COUNT}, got {count}")
        created = int(self._clock()) if created is None else created
        events = [sample_event(event_type, created=created, object=object, webhook_id=None) for _ in range(count)]
        self.send_events(events)
        return [event.id for event in events]

    def send_events(self, events: Sequence[Event]) -> None:
        """Deliver these events to the webhooks that receive their types. Their ids must be new.

        Args:
            events: up to 100,000 events. A webhook id in their bodies is replaced.

        Raises:
            ConfigurationError: there are too many events.
        """
        if len(events) > MAX_COUNT:
            raise ConfigurationError(f"expected at most {MAX_COUNT} events, got {len(events)}")
        now = self._clock()
        for event_type, group in groupby(events, key=lambda event: event.type):
            self._outbox.add(group, self._registry.subscribed(event_type), now)
        self._wake()

    def resend(self, event_id: str) -> None:
        """Deliver an event again to the webhooks that receive its type, with all its retries.

        Raises:
            LookupError: there is no such event.
        """
        event_type = self._outbox.type_of(event_id)
        if event_type is None:
            raise LookupError(f"there is no event {event_id!r}")
        self._outbox.add_again(event_id, self._registry.subscribed(event_type), self._clock())
        self._wake()

    def attempts(self, event_id: str | None = None, *, after: int = 0, limit: int | None = None) -> list[Attempt]:
        """Return the attempts, in the order of their ends.

        Args:
            event_id: only those of this event.
            after: only those with a greater `sequence`.
            limit: the maximum number; by default all.
        """
        return self._outbox.attempts(event_id, after=after, limit=-1 if limit is None else limit)

    def count_unfinished(self) -> int:
        """Return the number of deliveries that are due, wait for a retry, or are being sent."""
        return self._outbox.count_unfinished()

    def wait_until_idle(self, timeout: float = 30.0) -> None:
        """Wait until every delivery has succeeded or is given up.

        Args:
            timeout: in seconds.

        Raises:
            TimeoutError: deliveries are unfinished.
            EnvoyouError: the platform has failed, for example because the disk is full.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._outbox.is_idle(), timeout)
        self._check()
        if unfinished := self.count_unfinished():
            raise TimeoutError(f"{unfinished} deliveries are unfinished after {timeout:g} s")

    def start(self) -> None:
        """Serve the API, and begin to deliver.

        Raises:
            ConfigurationError: the port cannot be used, or the platform was started before.
        """
        if self._started.done():
            raise ConfigurationError("a Platform can be started once")
        try:
            listener = listen(self._port)
        except ConfigurationError:
            self._database.close()
            raise
        self._port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(listener,), name="envoyou-simulator", daemon=True)
        self._thread.start()
        self._started.result()

    def stop(self) -> None:
        """Stop serving and delivering. What is unfinished stays in the database.

        Raises:
            EnvoyouError: the platform has failed before.
        """
        if self._thread is not None and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        self._database.close()
        self._check()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listener))
        except BaseException as error:
            if self._started.done():
                self._failure = error
                self._notify()
            else:
                self._started.set_exception(error)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        server = ApiServer(self._api.handle)
        async with HttpTransport(
            timeout=self._timeout, connections=self._concurrency, loopback_only=self._loopback_only
        ) as transport:
            self._sender = Sender(
                self._outbox,
                self._registry,
                transport,
                trouble=self._trouble,
                clock=self._clock,
                concurrency=self._concurrency,
                on_attempt=self._report,
            )
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            sending = asyncio.create_task(self._sender.run())
            await server.ready.wait()
            self._started.set_result(None)
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({sending, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            sending.cancel()
            server.should_exit = True
            await serving
            with suppress(asyncio.CancelledError):
                await sending

    def _wake(self) -> None:
        if self._loop is not None and self._sender is not None:
            with suppress(RuntimeError):  # the loop is closed: the next process delivers
                self._loop.call_soon_threadsafe(self._sender.wake)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _check(self) -> None:
        if self._failure is not None:
            raise EnvoyouError(f"the platform has failed: {describe(self._failure)}") from self._failure

    def _report(self, attempt: Attempt | None) -> None:
        """Called after each attempt, and with `None` after a delivery is dropped."""
        self._notify()
        if attempt is not None and self._on_attempt is not None:
            self._on_attempt(attempt)


def _check_key(api_key: str) -> None:
    if not (api_key and api_key.isascii() and api_key.isprintable()):
        raise ConfigurationError("api_key must be printable ASCII text")
