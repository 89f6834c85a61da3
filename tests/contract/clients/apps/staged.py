"""What a server of the contract suite serves: the app of one adapter, built anew for each stage that a test sets up.

A stage is a number at the beginning of the path, and a folder of that number with the pickled handlers and settings.
Every process of the server builds the stage's app when the first request for it comes, in the place of the one before:
so one server, of as many processes as it likes, serves the whole suite.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

# Behind everything else: where the wheel is installed, the wheel is what is tested.
sys.path.append(str(Path(__file__).parents[4]))

from tests.contract.clients import Built, load
from tests.contract.faults import Faults, everything_logged

CLIENT = os.environ["CONTRACT_CLIENT"]
FOLDER = Path(os.environ["CONTRACT_FOLDER"])

if CLIENT.startswith("django"):
    import django

    django.setup()


class Stage:
    """The one that is built now, if any."""

    def __init__(self) -> None:
        self.number = ""
        self.app: Any = None
        self.faults = Faults(FOLDER)
        self._open = ExitStack()

    def build(self, number: str) -> None:
        self.clear()
        folder = FOLDER / number
        handlers, settings = pickle.loads((folder / "stage.pickle").read_bytes())
        self._open.enter_context(everything_logged(folder / "log"))
        if isinstance(nonces := settings.get("nonces"), partial):
            settings["nonces"] = nonces()
        built: Built = self._open.enter_context(load(CLIENT).build(handlers, **settings))
        self.faults = Faults(folder)
        self.faults.rig(built.webhooks)
        self.app, self.number = built.app, number

    def tell(self) -> None:
        """Let the test know that it is built, in this process."""
        (FOLDER / self.number / f"built-{os.getpid()}").touch()

    def clear(self) -> None:
        self.number = ""
        self._open.close()


STAGE_AND_PATH = re.compile(r"/([0-9]+)(/.*)")
_stage = Stage()
_building = threading.Lock()


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    found = STAGE_AND_PATH.fullmatch(environ["PATH_INFO"])
    if found is None:
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    number, path = found.groups()
    with _building:
        if _stage.number != number:
            _stage.build(number)
            _stage.tell()
    _stage.faults.heed()
    app: Callable[..., Iterable[bytes]] = _stage.app
    return app({**environ, "SCRIPT_NAME": f"/{number}", "PATH_INFO": path}, start_response)


Scope = MutableMapping[str, Any]
_async_building = asyncio.Lock()
_lifespan = AsyncExitStack()


async def asgi(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await _clear()
        await send({"type": "lifespan.shutdown.complete"})
        return
    found = STAGE_AND_PATH.fullmatch(scope["path"])
    if found is None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
        return
    async with _async_building:
        if _stage.number != found[1]:
            await _build(found[1])
    _stage.faults.heed()
    await _stage.app({**scope, "root_path": f"/{found[1]}"}, receive, send)


async def _build(number: str) -> None:
    await _clear()
    await asyncio.to_thread(_stage.build, number)
    if not CLIENT.startswith("django"):  # which has no lifespan
        await _lifespan.enter_async_context(_lifespan_of(_stage.app))
    _stage.tell()


async def _clear() -> None:
    await _lifespan.aclose()
    await asyncio.to_thread(_stage.clear)


@asynccontextmanager
async def _lifespan_of(app: Callable[..., Awaitable[None]]) -> Any:
    """What a server does at its start and its end, done for one app at any time."""
    to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.create_task(app(scope, to_app.get, from_app.put))
    for event in ("startup", "shutdown"):
        await to_app.put({"type": f"lifespan.{event}"})
        answer = await asyncio.wait_for(from_app.get(), 20)
        if answer["type"] != f"lifespan.{event}.complete":
            raise RuntimeError(answer)
        if event == "startup":
            yield
    await running
