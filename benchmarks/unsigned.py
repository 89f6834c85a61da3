"""The cost of an unsigned request by size and shape, and its effect on the latency of another page."""

from __future__ import annotations

import asyncio
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from unittest.mock import patch

from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from envoyou_core import WebhookRequest, Webhooks
from envoyou_core.reception import receiver
from envoyou_core.reception.strict_json import load_json

__all__ = ["comparisons"]

SECRET = "whsec_benchmark"
SIZES = (4, 64, 1000)
"""In KiB."""

ATTACK_RATE = 2.0
"""Unsigned requests per second."""

INTERVAL = 0.01
"""Seconds between the starts of two visits to the other page, so that a stall delays all visits that fall into it."""

MAX_VISITS = 1000

ATTACK_BODY = ("nested lists", 1000)

SHAPES: dict[str, Callable[[int], str]] = {
    "text": lambda size: json.dumps({"x": "a" * (size - 10)}),
    "nested lists": lambda size: "[" + ",".join(["[" * 50 + "]" * 50] * (size // 101)) + "]",
    "short floats": lambda size: "[" + ",".join(["1.5"] * (size // 4)) + "]",
    "members": lambda size: "{" + ",".join(f'"{number:06d}":1' for number in range(size // 11)) + "}",
    "objects": lambda size: "[" + ",".join(['{"":1}'] * (size // 7)) + "]",
}

Attack = Callable[[WebhookRequest], Coroutine[object, object, None]] | None


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    costs = [
        Comparison(
            f"CPU microseconds per unsigned request of {size} KiB",
            {shape: partial(reject, run, body_of(shape, size)) for shape in SHAPES},
            [Ratio("nested lists", "text")],
        )
        for size in SIZES
    ]
    webhooks = make_webhooks()

    async def areceive(request: WebhookRequest) -> None:
        await webhooks.areceive(request)

    async def receive(request: WebhookRequest) -> None:
        webhooks.receive(request)

    async def parse(request: WebhookRequest) -> None:
        parse_fully(request)

    pages = [
        Comparison(
            f"another page's p99 latency in microseconds, {server}, {ATTACK_RATE:g} x 1 MB unsigned per second",
            {
                "alone": partial(visit, run, None),
                "with unsigned requests": partial(visit, run, attack),
                "with unsigned requests, fully parsed": partial(visit, run, parse),
            },
            [
                Ratio("with unsigned requests", "alone"),
                Ratio("with unsigned requests, fully parsed", "with unsigned requests"),
            ],
        )
        for server, visit, attack in (("ASGI", visit_from_loop, areceive), ("threads", visit_from_threads, receive))
    ]
    return [*costs, *pages]


def body_of(shape: str, size: int) -> bytes:
    return SHAPES[shape](size * 1024).encode()


def unsigned(body: bytes) -> WebhookRequest:
    headers = {
        "Content-Type": "application/json",
        "X-EnvoyOU-Signature": "v1," + "0" * 64,
        "X-EnvoyOU-Timestamp": str(int(time.time())),
        "X-EnvoyOU-Webhook-ID": "wh_1",
        "X-EnvoyOU-Event-Type": "user.created",
    }
    return WebhookRequest.from_http("POST", headers, body)


def make_webhooks() -> Webhooks:
    return Webhooks(secret=SECRET, inbox="memory:", handoff="manual")


def reject(run: Run, body: bytes) -> Round:
    """Reject unsigned requests one after another."""
    webhooks = make_webhooks()
    count = max(2, min(run.events, 2_000_000 // len(body)))
    # CPU time is measured, so a machine that is busy with other work must not run into the limit on real time.
    with patch.object(receiver, "AUTHENTICATION_BUDGET", 600.0):
        started = time.process_time()
        statuses = [webhooks.receive(unsigned(body)).status for _ in range(count)]
        elapsed = time.process_time() - started
    if set(statuses) != {401}:
        raise MeasurementError("not every unsigned request was rejected")
    return Round(done=count, rate=elapsed / count * 1e6)


def parse_fully(request: WebhookRequest) -> None:
    """Decode and encode the body with Python's `json`."""
    json.dumps(load_json(request.body), separators=(",", ":"), sort_keys=True)


def visit_from_loop(run: Run, attack: Attack) -> Round:
    """Visit the page while one event loop also handles unsigned requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"page\n")
            await writer.drain()
        writer.close()

    async def main() -> Round:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        attacks = {asyncio.ensure_future(_attack_loop(attack, number / ATTACK_RATE)) for number in range(_attacks(run))}
        try:
            return await asyncio.to_thread(_visits, run, server.sockets[0].getsockname()[1])
        finally:
            for task in attacks:
                task.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)
            server.close()

    return asyncio.run(main())


async def _attack_loop(attack: Attack, after: float) -> None:
    await asyncio.sleep(after)
    if attack is not None:
        await attack(unsigned(body_of(*ATTACK_BODY)))


def visit_from_threads(run: Run, attack: Attack) -> Round:
    """Visit the page while threads of the same process handle unsigned requests."""

    class Page(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline():
                self.wfile.write(b"page\n")

    def attack_now() -> None:
        if attack is not None:
            asyncio.run(attack(unsigned(body_of(*ATTACK_BODY))))

    timers = [threading.Timer(number / ATTACK_RATE, attack_now) for number in range(_attacks(run))]
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for timer in timers:
            timer.start()
        try:
            return _visits(run, server.server_address[1])
        finally:
            for timer in timers:
                timer.cancel()
                timer.join()
            server.shutdown()


def _attacks(run: Run) -> int:
    return max(1, int(_number_of_visits(run) * INTERVAL * ATTACK_RATE))


def _number_of_visits(run: Run) -> int:
    return min(run.events, MAX_VISITS)


def _visits(run: Run, port: int) -> Round:
    """Visit the page from another process, which has its own interpreter."""
    visitor = [
        sys.executable,
        "-m",
        "benchmarks.workers.visitor",
        str(port),
        str(_number_of_visits(run)),
        str(INTERVAL),
    ]
    finished = subprocess.run(visitor, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise MeasurementError("visiting the other page failed")
    delays = sorted(map(float, finished.stdout.split()))
    return Round(done=len(delays), rate=delays[int(len(delays) * 0.99)] * 1e6)
