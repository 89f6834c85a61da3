"""The commands that run a worker, and show and control what is handled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from envoyou_core.cli.documents import handler_as_json, process_as_json
from envoyou_core.cli.output import fail, print_line, print_note, print_result, report_usage_errors, reporting
from envoyou_core.cli.parameters import AS_JSON, pattern
from envoyou_core.cli.tables import handlers_table, processes_table
from envoyou_core.cli.target import Target, inbox_of, target_of, webhooks_of
from envoyou_core.errors import ConfigurationError, WorkerStuckError, describe
from envoyou_core.handler import Handler
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.patterns import covers
from envoyou_core.webhooks import Webhooks

__all__ = ["handlers", "pause", "resume", "worker", "workers"]

NO_HANDLER = "no handler is registered: the module that registers them may not be imported by the application's module"

log = RedactedLogger("envoyou")

PAUSED_TYPE = Annotated[
    str | None,
    typer.Option(
        "--type", parser=pattern, metavar="PATTERN", help="An event type, such as user.created, 'user.*' or '*'."
    ),
]
PAUSED_HANDLER = Annotated[str | None, typer.Option("--handler", help="The name of a handler, instead of a type.")]


class LogLevel(StrEnum):
    """The lowest level that a worker logs, by the names of `logging`."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@reporting
def worker(
    context: typer.Context,
    drain: Annotated[
        bool, typer.Option("--drain", help="Handle what is due now, apply the retention settings, and end: for cron.")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="For development, in Django only: restart when the code changes.")
    ] = False,
    shutdown_timeout: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="For running handlers to finish after SIGTERM; by default, as configured."
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, metavar="PORT", help="Answer health probes at this port; 0 takes a free one."),
    ] = None,
    health_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address of the health port; by default all of this machine.")
    ] = "",
    log_level: Annotated[
        LogLevel | None,
        typer.Option(case_sensitive=False, help="The lowest level to log; by default info, or as configured."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Serve metrics for Prometheus, with the inbox's gauges."),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to serve them: 0.0.0.0 for other machines.")
    ] = "127.0.0.1",
) -> None:
    """Run a worker process until SIGTERM or SIGINT. A second signal ends it at once."""
    target = target_of(context)
    if drain and health_port is not None:
        raise typer.BadParameter("--drain and --health-port exclude each other")
    if drain and reload:
        raise typer.BadParameter("--drain and --reload exclude each other")
    if reload and target.reload is None:
        raise typer.BadParameter("--reload is a part of `manage.py envoyou worker` only")
    if metrics_port is not None and (drain or reload):
        raise typer.BadParameter("--metrics-port is for a worker that runs without --drain and --reload")
    # A worker may create its SQLite file, unless the path is relative.
    webhooks = webhooks_of(context) if drain else target.find()
    target.set_up_logging()
    if log_level is not None:
        logging.getLogger("envoyou").setLevel(log_level)
    with (
        _answering_probes(webhooks, health_host, health_port),
        _serving_metrics(webhooks, metrics_host, metrics_port),
    ):
        _run(target, webhooks, drain=drain, reload=reload, shutdown_timeout=shutdown_timeout)


def _run(target: Target, webhooks: Webhooks, *, drain: bool, reload: bool, shutdown_timeout: float | None) -> None:
    if drain:
        _drain(webhooks)
    elif reload and target.reload is not None:
        target.reload(partial(_work, webhooks, shutdown_timeout), partial(webhooks.stop, shutdown_timeout))
    else:
        _work(webhooks, shutdown_timeout)


@contextmanager
def _serving_metrics(webhooks: Webhooks, host: str, port: int | None) -> Iterator[None]:
    if port is None:
        yield
        return
    try:
        from envoyou_core.observability import prometheus
    except ImportError as error:
        fail(f"--metrics-port: {error.name} is not installed: pip install 'envoyou-webhooks[prometheus]'")
    prometheus.instrument(webhooks)
    with ExitStack() as stack:
        try:
            bound = stack.enter_context(prometheus.serve(webhooks, port=port, host=host))
        except OSError as error:
            fail(f"cannot serve metrics on {host}, port {port}: {error.strerror or error}")
        log.info("metrics are served at http://%s:%d/metrics", host, bound)
        yield


@contextmanager
def _answering_probes(webhooks: Webhooks, host: str, port: int | None) -> Iterator[None]:
    if port is None:
        yield
        return
    from envoyou_core.health.server import serve_probes

    with serve_probes(webhooks.probes, host, port) as used:
        log.info("health probes are answered at port %(port)d", {"port": used})
        yield


def _work(webhooks: Webhooks, shutdown_timeout: float | None) -> None:
    try:
        webhooks.run_worker(shutdown_timeout=shutdown_timeout)
    except ConfigurationError as error:
        fail(f"cannot start the worker: {error}")
    except WorkerStuckError as error:
        fail(f"the worker has ended and must be restarted: {error}")
    except Exception as error:
        log.error("worker failed", exc_info=error)
        fail(f"the worker failed: {describe(error)}")


def _drain(webhooks: Webhooks) -> None:
    if not webhooks.registered:
        fail(NO_HANDLER)
    webhooks.inbox.open()
    settled = webhooks.drain()
    webhooks.apply_retention()
    webhooks.store_counts()
    print_line(f"Settled {settled} {'event' if settled == 1 else 'events'}.")


@reporting
def handlers(context: typer.Context, as_json: AS_JSON = False) -> None:
    """Show the handlers that are registered in this application, and what pauses them."""
    webhooks = webhooks_of(context)
    paused = frozenset[str]()
    try:
        webhooks.inbox.open()
        paused = webhooks.paused
    except Exception as error:
        print_note(f"It is unknown what is paused: {describe(error)}")
    rows = [(handler, _pauses_of(handler, paused)) for handler in webhooks.registered]
    if as_json:
        print_result([handler_as_json(*row) for row in rows])
        return
    if not rows:
        fail(NO_HANDLER)
    print_result(handlers_table(rows))


@reporting
def workers(context: typer.Context, as_json: AS_JSON = False) -> None:
    """Show the processes that have used the inbox within two days: workers, and those that only accept events."""
    processes = inbox_of(context).processes()
    now = datetime.now(UTC)
    if as_json:
        print_result([process_as_json(process, now) for process in processes])
    else:
        print_result(processes_table(processes, now))


@reporting
def pause(context: typer.Context, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Pause a type of event, or all events that a handler handles, in all processes until they are resumed."""
    _change_pauses(context, lambda webhooks: webhooks.pause(type=type, handler=handler))


@reporting
def resume(context: typer.Context, type: PAUSED_TYPE = None, handler: PAUSED_HANDLER = None) -> None:
    """Resume a type or handler that was paused; give the same value as to `pause`."""
    _change_pauses(context, lambda webhooks: webhooks.resume(type=type, handler=handler))


def _change_pauses(context: typer.Context, change: Callable[[Webhooks], object]) -> None:
    webhooks = webhooks_of(context)
    webhooks.inbox.open()
    with report_usage_errors():
        change(webhooks)
    print_line(f"Paused: {', '.join(sorted(webhooks.paused)) or 'nothing'}.")


def _pauses_of(handler: Handler, paused: Iterable[str]) -> list[str]:
    """Return the pauses that hold back events of `handler`."""
    held = {f"handler:{name}" for name in handler.names}
    kinds = [(subject, *subject.partition(":")[::2]) for subject in paused]
    return sorted(
        subject
        for subject, kind, name in kinds
        if subject in held
        or (kind == "type" and any(covers(name, own) or covers(own, name) for own in handler.patterns))
    )
