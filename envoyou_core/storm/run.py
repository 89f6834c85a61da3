"""Runs a storm: the platform delivers, forgeries are sent meanwhile, the server is killed, both records are read."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from envoyou_core.event import Event
from envoyou_core.inbox import FINISHED, Inbox, InboxRecord
from envoyou_core.reception.signature import Secret
from envoyou_core.reception.verification import VerificationPolicy
from envoyou_core.simulator import Platform, Trouble, Webhook
from envoyou_core.simulator.transport import HttpTransport
from envoyou_core.storm.comparison import Outcome, compare
from envoyou_core.storm.forgeries import CONCURRENCY, Forgery, ForgeryAnswer, forge, send_forgeries
from envoyou_core.storm.plan import Plan
from envoyou_core.testing.deliveries import Delivery

__all__ = ["TROUBLE", "Restartable", "Storm", "probe", "run_storm"]

TROUBLE: Final[Mapping[str, float]] = {
    "duplicates": 0.1,
    "reordering": 0.1,
    "dropped_answers": 0.1,
    "pretty_bodies": 0.2,
    "repeated_nonces": 0.1,
}
"""What the platform does wrong, by the names of `Trouble`."""

CANONICAL_SIGNATURES: Final = 0.2
"""The share of attempts that are signed in the canonical form, if the application accepts it."""

MAX_SKEW: Final = 60
"""Seconds by which the platform's clock is wrong: at most half the application's tolerance."""

RETRIES: Final = {"max_attempts": 20, "backoff_multiplier": 1.3, "initial_delay": 300}
"""Lasts for minutes, so that a restart ends no delivery."""

FORGERY_PAUSE: Final = 0.05
FORGERY_SHARE: Final = 24
"""One forgery for so many events."""

MIN_FORGERIES: Final = 12
DELIVERY_TIMEOUT: Final = 15.0
INTERVAL: Final = 0.05
"""Seconds between two looks at the platform or the inbox."""

GRACE: Final = 5.0
"""Seconds that an event may be missing from the inbox after its delivery, without a change of another event."""

LOOK: Final = 500
"""The events that are read from the inbox at a look."""


class Restartable(Protocol):
    """A server that can be killed, terminated and started again."""

    def start(self) -> None:
        """Start it."""

    def kill(self) -> None:
        """Kill it."""

    def terminate(self) -> None:
        """End it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """The settings of a run.

    Attributes:
        plan: the genuine events.
        url: the URL that receives webhooks.
        secret: the endpoint's signing secret.
        webhook_id: the endpoint's id; `None` for a random one.
        headers: the custom headers of the endpoint.
        seed: chooses what goes wrong.
        concurrency: the maximum number of deliveries at a time.
        kills: how often the server is killed or terminated, in turn.
        timeout: seconds after which the run ends with what it has.
        patience: seconds that handlers may make no progress.
        loopback_only: whether other than loopback addresses are refused.
        policy: what the application accepts.
    """

    plan: Plan
    url: str
    secret: str = field(repr=False)
    webhook_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    seed: int = 0
    concurrency: int = 16
    kills: int = 0
    timeout: float = 600.0
    patience: float = 60.0
    loopback_only: bool = True
    policy: VerificationPolicy = field(default_factory=VerificationPolicy)

    @property
    def trouble(self) -> Trouble:
        """What the platform does wrong: nothing for which a genuine delivery may be refused."""
        skew = int(min(MAX_SKEW, self.policy.tolerance / 2))
        raw, canonical = ("raw" in self.policy.signed_content, "canonical" in self.policy.signed_content)
        return Trouble(
            seed=self.seed,
            canonical_signatures=CANONICAL_SIGNATURES if raw and canonical else float(canonical),
            clock_skew=skew if self.seed % 2 else -skew,
            **TROUBLE,
        )


def run_storm(
    storm: Storm,
    *,
    inbox: Callable[[], Inbox],
    spool: Inbox | None = None,
    server: Restartable | None = None,
    effects: Callable[[], Sequence[str]] | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
    on_note: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Run a storm, and return what both records say.

    Args:
        storm: the settings.
        inbox: returns the opened inbox; called after the first deliveries, because the application may create it.
        spool: the application's spool.
        server: the application's server, which is running.
        effects: returns the ids of the events of each effect that the application reports.
        on_progress: called with the number of events that are delivered, plus the number of those that are finished.
        on_note: called with a line about each restart.

    Raises:
        ConfigurationError: a setting is invalid, the inbox cannot be opened, or the server does not start again.
    """
    deadline = time.monotonic() + storm.timeout
    with (
        Platform(
            trouble=storm.trouble,
            timeout=DELIVERY_TIMEOUT,
            concurrency=storm.concurrency,
            loopback_only=storm.loopback_only,
        ) as platform,
        ThreadPoolExecutor(1) as thread,
    ):
        webhook = platform.register(
            storm.url,
            secret=storm.secret,
            headers=dict(storm.headers),
            retry_policy=RETRIES,
            webhook_id=storm.webhook_id,
        )
        types = list(dict.fromkeys(event.type for event in storm.plan.events))
        forgeries = _forgeries(storm, webhook, types)
        ended = False
        sending = thread.submit(_send_forgeries, storm, forgeries, lambda: ended or time.monotonic() > deadline)
        try:
            deliveries = _Deliveries(platform, storm, server, on_note)
            progress = _Progress(storm, spool, deadline)
            for wave in storm.plan.waves:
                for delivered in deliveries.make(wave, deadline):
                    on_progress(delivered + progress.finished)
                # Opened here, because the application may have created it on its first delivery.
                for finished in progress.follow(inbox(), [event.id for event in wave]):
                    on_progress(deliveries.made + finished)
            answers = sending.result()
        finally:
            ended = True
        opened = inbox()
        return compare(
            storm.plan.events,
            platform.attempts(),
            answers,
            find=opened.get,
            in_spool=lambda event_id: spool is not None and spool.get(event_id) is not None,
            effects=None if effects is None else effects(),
        )


def probe(url: str, *, loopback_only: bool) -> int:
    """Send one request without a signature, and return the status of its answer.

    Args:
        url: the URL that receives webhooks.
        loopback_only: whether other than loopback addresses are refused.

    Raises:
        DeliveryError: there was no answer, or the address is refused.
    """

    async def send() -> int:
        async with HttpTransport(timeout=DELIVERY_TIMEOUT, connections=1, loopback_only=loopback_only) as transport:
            return (await transport.post(url, Delivery({"Content-Type": "application/json"}, b"{}"))).status

    return asyncio.run(send())


def _forgeries(storm: Storm, webhook: Webhook, types: Sequence[str]) -> list[Forgery]:
    count = max(MIN_FORGERIES, len(storm.plan.events) // FORGERY_SHARE)
    secret: Secret = storm.secret
    return forge(
        storm.plan.run,
        types,
        count,
        secret=secret,
        webhook_id=webhook.id,
        headers=dict(storm.headers),
        now=time.time(),
    )


def _send_forgeries(storm: Storm, forgeries: Sequence[Forgery], is_over: Callable[[], bool]) -> list[ForgeryAnswer]:
    async def send() -> list[ForgeryAnswer]:
        async with HttpTransport(
            timeout=DELIVERY_TIMEOUT, connections=CONCURRENCY, loopback_only=storm.loopback_only
        ) as transport:
            return await send_forgeries(storm.url, forgeries, transport, pause=FORGERY_PAUSE, is_over=is_over)

    return asyncio.run(send())


class _Deliveries:
    """Delivers waves of events, and kills the server at even distances among all of them."""

    def __init__(
        self, platform: Platform, storm: Storm, server: Restartable | None, on_note: Callable[[str], object]
    ) -> None:
        self._platform = platform
        self._server = server
        self._on_note = on_note
        total = len(storm.plan.events)
        kills = storm.kills if server is not None else 0
        self._kill_at = deque(total * (number + 1) // (kills + 1) for number in range(kills))
        self._kills = 0
        self._sent = 0
        self.made = 0

    def make(self, wave: Sequence[Event], deadline: float) -> Iterator[int]:
        """Deliver a wave, and yield how many events are delivered by then, of all waves."""
        self._platform.send_events(wave)
        self._sent += len(wave)
        while (unfinished := self._platform.count_unfinished()) and time.monotonic() < deadline:
            self.made = max(self.made, self._sent - unfinished)
            yield self.made
            if self._kill_at and self.made >= self._kill_at[0]:
                self._kill_at.popleft()
                self._restart()
            time.sleep(INTERVAL)
        self.made = self._sent - self._platform.count_unfinished()
        yield self.made

    def _restart(self) -> None:
        assert self._server is not None  # noqa: S101 - without a server, there is nothing in `_kill_at`
        began = time.monotonic()
        self._kills += 1
        name = "SIGKILL" if self._kills % 2 else "SIGTERM"
        if name == "SIGKILL":
            self._server.kill()
        else:
            self._server.terminate()
        self._server.start()
        self._on_note(f"{name} after {self.made} events; restarted in {time.monotonic() - began:.1f} s")


class _Progress:
    """Follows the events in the inbox until they are finished, or make no progress any more."""

    def __init__(self, storm: Storm, spool: Inbox | None, deadline: float) -> None:
        self._patience = storm.patience
        self._spool = spool
        self._deadline = deadline
        self.finished = 0

    def follow(self, inbox: Inbox, event_ids: Sequence[str]) -> Iterator[int]:
        """Yield the number of finished events of all waves, until those of this one need no more time."""
        rest = deque(event_ids)
        missing: set[str] = set()
        states: dict[str, object] = {}
        changed = time.monotonic()
        while rest:
            for _ in range(min(LOOK, len(rest))):
                event_id = rest.popleft()
                record = inbox.get(event_id)
                if record is not None and record.status in FINISHED:
                    self.finished += 1
                    missing.discard(event_id)
                    changed = time.monotonic()
                    continue
                if record is not None and states.get(event_id) != (state := _state(record)):
                    states[event_id], changed = state, time.monotonic()
                rest.append(event_id)
                if record is None and not self._is_in_spool(event_id):
                    missing.add(event_id)
                else:
                    missing.discard(event_id)
            yield self.finished
            patience = min(GRACE, self._patience) if len(missing) == len(rest) else self._patience
            if time.monotonic() > min(self._deadline, changed + patience):
                return
            time.sleep(INTERVAL)

    def _is_in_spool(self, event_id: str) -> bool:
        return self._spool is not None and self._spool.get(event_id) is not None


def _state(record: InboxRecord) -> object:
    return record.status, record.attempts, record.crashes
