"""Requests for each second of the server's CPU: our endpoint, beside the same stack's own without any of our work.

Real servers, kept-alive connections on loopback. The CPU time of a database server or of Redis is not included.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.databases import databases
from benchmarks.load import Load, send_all
from benchmarks.measuring import Comparison, Limit, MeasurementError, Ratio, Round, Run
from benchmarks.processes import ROOT
from benchmarks.servers import free_port, gunicorn, serving, uvicorn
from envoyou_core import Webhooks
from envoyou_core.asgi import WebhookEndpoint
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery
from tests.services import key_prefix

__all__ = ["comparisons"]

SECRET = "whsec_benchmark"
PATH = "/webhooks/envoyou"

WARM_UP = 10
"""Requests on each connection before the measurement."""

BARE, SAMPLE, COMMIT, DELAY = "bare", "the guide's sample", "sample + commit (SQLite)", "sample + Celery .delay()"

Environment = Callable[[], AbstractContextManager[Mapping[str, str]]]
"""Prepares what a server needs, and yields its environment variables."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A framework under a server.

    Attributes:
        command: makes the command of the server from an application, a port and the number of connections.
        app: the application to serve.
        targets: the aims of our variants, `route` and `lean`, beside the bare endpoint.
        table: the table of accepted events.
    """

    command: Callable[[str, int, int], list[str]]
    app: str
    targets: Mapping[str, float]
    table: str = "envoyou_inbox"


STACKS = {
    "Starlette, uvicorn": Stack(uvicorn, "benchmarks.sites.starlette_site:app", {"route": 0.50, "lean": 0.65}),
    "FastAPI, uvicorn": Stack(uvicorn, "benchmarks.sites.fastapi_site:app", {"route": 1.15}),
    "Flask, gunicorn": Stack(gunicorn, "benchmarks.sites.flask_site:app", {"route": 0.85, "lean": 1.1}),
    "Django, gunicorn": Stack(
        gunicorn, "benchmarks.sites.django_site:app", {"route": 0.80, "lean": 1.2}, "envoyou_processed_event"
    ),
}

IN_PROCESS, IN_PROCESS_TARGET = "the ASGI endpoint, SQLite", 45
"""Microseconds."""


@dataclass(frozen=True, slots=True)
class Side:
    """One variant of an endpoint.

    Attributes:
        variant: its name in `benchmarks.sites.variants`.
        database: the name of its database.
        table: where its accepted events are counted, if it stores any.
        signed_content: the form of the body that its deliveries are signed in.
    """

    variant: str
    database: str = "SQLite"
    table: str | None = None
    signed_content: str = "raw"


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    return [in_process(run), *(of_stack(run, name, stack) for name, stack in STACKS.items())]


def of_stack(run: Run, name: str, stack: Stack) -> Comparison:
    sides = {
        BARE: Side("bare"),
        SAMPLE: Side("sample", signed_content="canonical"),
        COMMIT: Side("commit", table="accepted", signed_content="canonical"),
    }
    if run.redis is not None:
        sides[DELAY] = Side("delay", signed_content="canonical")
    ratios: list[Ratio] = []
    for database in databases(run):
        for variant in ("route", "lean"):
            ours = f"envoyou, {variant}, {database}"
            sides[ours] = Side(variant, database, stack.table)
            ratios.append(Ratio(ours, BARE, target=stack.targets.get(variant) if database == "SQLite" else None))
            ratios.extend(Ratio(ours, other) for other in (COMMIT, DELAY) if other in sides)
    return Comparison(
        f"requests for each second of the server's CPU, {run.requests} connections, {name}",
        {each: partial(measure, run, stack, side) for each, side in sides.items()},
        ratios,
    )


def measure(run: Run, stack: Stack, side: Side) -> Round:
    """Serve one side and send it `run.events` requests with different events."""
    warm_up = prepared(run.requests * WARM_UP, side.signed_content)
    requests = prepared(run.events, side.signed_content)
    with tempfile.TemporaryDirectory() as folder, _environment(run, side) as environment:
        if "django" in stack.app:
            _migrate(environment)
        port = free_port()
        command = stack.command(stack.app, port, run.requests)
        with serving(command, port, environment, Path(folder)) as server:
            send_all(port, warm_up, run.requests)
            before = server.cpu_seconds()
            load = send_all(port, requests, run.requests)
            used = server.cpu_seconds() - before
        if side.table is not None:
            _check_stored(environment["BENCHMARK_DATABASE"], side.table, len(warm_up) + len(requests))
    return Round(done=len(requests), rate=len(requests) / used, details=_details(load, used, len(requests)))


def _details(load: Load, used: float, requests: int) -> dict[str, float]:
    return {
        "CPU us/req": used / requests * 1e6,
        "req/s": requests / load.seconds,
        "p50 ms": load.percentile(0.50),
        "p99 ms": load.percentile(0.99),
    }


def prepared(count: int, signed_content: str) -> list[bytes]:
    """Return `count` signed requests with different events, as they are sent."""
    found = []
    for _ in range(count):
        delivery = sign_delivery(sample_event(), secret=SECRET, signed_content=signed_content)  # type: ignore[arg-type]
        lines = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(delivery.body)}"]
        lines += [f"{name}: {value}" for name, value in delivery.headers.items()]
        found.append("\r\n".join(lines).encode() + b"\r\n\r\n" + delivery.body)
    return found


@contextmanager
def _environment(run: Run, side: Side) -> Iterator[Mapping[str, str]]:
    broker = key_prefix(run.redis) if run.redis is not None and side.variant == "delay" else nullcontext("")
    with databases(run)[side.database]() as url, broker as prefix:
        yield {
            "BENCHMARK_VARIANT": side.variant,
            "BENCHMARK_DATABASE": url,
            "BENCHMARK_REDIS": run.redis or "",
            "BENCHMARK_PREFIX": prefix,
        }


def _migrate(environment: Mapping[str, str]) -> None:
    settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.sites.django_settings", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, "-m", "django", "migrate", "-v", "0"],
        cwd=ROOT,
        env={**os.environ, **environment, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise MeasurementError(f"the tables of Django cannot be created: {finished.stderr}")


def _check_stored(url: str, table: str, expected: int) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.connect() as connection:
        stored = connection.scalar(text(f"SELECT count(*) FROM {table}"))
    engine.dispose()
    if stored != expected:
        raise MeasurementError(f"{stored} of {expected} acknowledged events are stored")


def in_process(run: Run) -> Comparison:
    return Comparison(
        f"CPU microseconds per request without a server, {run.requests} at a time",
        {IN_PROCESS: partial(call_endpoint, run)},
        [Limit(IN_PROCESS, at_most=IN_PROCESS_TARGET)],
    )


def call_endpoint(run: Run) -> Round:
    """Call the ASGI endpoint as a server does, with so many requests at a time."""
    deliveries = [sign_delivery(sample_event(), secret=SECRET) for _ in range(run.events)]
    statuses: list[int] = []

    async def send(message: Mapping[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])  # type: ignore[arg-type]

    async def call(endpoint: WebhookEndpoint, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "client": ("127.0.0.1", 40000)}
        await endpoint(scope, receive, send)

    async def call_all(endpoint: WebhookEndpoint) -> tuple[float, float]:
        requests = [
            ([(name.lower().encode(), value.encode()) for name, value in each.headers.items()], each.body)
            for each in deliveries
        ]
        waiting = iter(requests)

        async def call_each() -> None:
            for headers, body in waiting:
                await call(endpoint, headers, body)

        started, began = time.process_time(), time.thread_time()
        await asyncio.gather(*(call_each() for _ in range(run.requests)))
        return time.process_time() - started, time.thread_time() - began

    with databases(run)["SQLite"]() as url:
        inbox = SqlInbox(url)
        inbox.open()
        try:
            used, on_loop = asyncio.run(
                call_all(WebhookEndpoint(Webhooks(secret=SECRET, inbox=inbox, handoff="manual")))
            )
            stored = inbox.stats(exact=True).total
        finally:
            inbox.close()
    if stored != run.events or set(statuses) != {200}:
        raise MeasurementError(f"{stored} of {run.events} requests were accepted")
    details = {"loop us": on_loop / stored * 1e6, "writer us": (used - on_loop) / stored * 1e6}
    return Round(done=stored, rate=used / stored * 1e6, details=details)
