"""What a `Webhooks` object says of itself: probes, counts, alerts, and the stream of notices that these listen to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from envoyou_core import observability
from envoyou_core.errors import describe
from envoyou_core.handlers import Handlers
from envoyou_core.inbox import Inbox, WorkerInbox
from envoyou_core.settings import WorkerSettings

if TYPE_CHECKING:
    from envoyou_core.alerts.current import CurrentAlert
    from envoyou_core.alerts.evaluator import Evaluator
    from envoyou_core.analytics.reading import Analytics
    from envoyou_core.analytics.recorder import Recorder
    from envoyou_core.health.probes import Probes
    from envoyou_core.observability import Notices
    from envoyou_core.spool.spool import Spool
    from envoyou_core.worker.engine import Engine

__all__ = ["Monitoring"]


class Monitoring(ABC):
    """Answers health probes, counts what happens, and evaluates alerts.

    Args:
        inbox: the inbox; its name is that of the `Webhooks` object.
        settings: how events are handled.
    """

    def __init__(self, inbox: WorkerInbox, settings: WorkerSettings) -> None:
        from envoyou_core.analytics.recorder import KINDS
        from envoyou_core.inbox.processes import Presence

        self.inbox: Inbox = inbox
        self._inbox = inbox
        self._settings = settings
        self._handlers = Handlers()
        self._notices = observability.Notices()
        self._notices.subscribe(observability.log_notice)
        self._presence = Presence(self._handlers, clock=settings.clock)
        self._recorder = self._make_recorder()
        if settings.analytics:
            self._notices.subscribe(self._recorder, KINDS)

    @property
    @abstractmethod
    def spool(self) -> Spool | None:
        """The spool, if there is one."""

    @property
    @abstractmethod
    def _engine(self) -> Engine: ...

    @cached_property
    def probes(self) -> Probes:
        """Answers health probes: `webhooks.probes.check("ready")`. See the page *Health*."""
        from envoyou_core.health.probes import Probes

        return Probes(
            self._inbox,
            self.spool,
            in_thread=self._in_ending_thread,
            own_id=lambda: self._presence.process.id,
            clock=self._settings.clock,
        )

    def _in_ending_thread(self, function: Callable[[], object]) -> None:
        try:
            self._engine.in_context(function)
        finally:
            self._engine.run_thread_exit_hooks()

    @property
    def analytics(self) -> Analytics:
        """What was counted, for example `webhooks.analytics.summary(timedelta(hours=24))`."""
        from envoyou_core.analytics.reading import Analytics

        return Analytics(self._inbox.sum_rollups, flush=self._recorder.flush, clock=self._settings.clock)

    def current_alerts(self) -> list[CurrentAlert]:
        """Return the alerts that fire, and those that have resolved within 24 hours, of all machines.

        They are as of the last evaluation, which some process that receives or handles events makes every 30 seconds.
        See the guide, "Monitoring and Analytics".
        """
        from envoyou_core.alerts.current import current_alerts

        return current_alerts(self._inbox.alert_states().values(), self._settings.clock())

    @property
    def notice_stream(self) -> Notices:
        """The stream of this object's notices. To listen, use `subscribe`."""
        return self._notices

    def store_counts(self) -> None:
        """Store what this process has counted. Its own thread, `stop` and a lifespan's end do so as well.

        For processes that end without them, such as a cron job.
        """
        self._recorder.flush()

    def _make_recorder(self) -> Recorder:
        from envoyou_core.analytics.recorder import Recorder

        return Recorder(
            lambda rollups: self._engine.in_context(lambda: self._inbox.add_rollups(rollups)),
            name=self.inbox.name,
            notices=self._notices,
            clock=self._settings.clock,
            may_tick=self._may_tick,
            on_tick=self._evaluate_alerts,
            on_tick_end=lambda: self._engine.run_thread_exit_hooks(),
        )

    def _evaluate_alerts(self) -> None:
        if self._evaluator is None:
            return
        evaluator = self._evaluator
        try:
            self._engine.in_context(evaluator.run_due)
        except Exception as error:
            # The ticker comes again, and a database that is down is reported by whatever else needs it.
            self._notices.emit(observability.AlertsNotEvaluated(self.inbox.name, describe(error)))

    @cached_property
    def _evaluator(self) -> Evaluator | None:
        from envoyou_core.alerts.evaluator import Evaluator, callback_names

        if self._settings.alerts is None:
            return None
        return Evaluator(
            self._inbox,
            self.spool,
            config=self._settings.alerts,
            callbacks=lambda: callback_names(self._handlers.hooks.alert),
            notices=self._notices,
            clock=self._settings.clock,
        )

    def _may_tick(self) -> bool:
        """Whether a thread of this process may use the inbox at regular intervals."""
        return True
