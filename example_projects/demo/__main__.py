"""`make demo`: run the FastAPI example in a process, and have a local EnvoyOU and a forger deliver to it.

The exit status is 0 only if all responses, all events in the inbox and all effects of handlers are as expected.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from cases import PATH, make_cases
from oncall import OnCall
from rich.console import Console
from run import Run
from server import Server, ServerError
from show import make_show

from envoyou_core import EVENT_TYPES
from envoyou_core.client import EnvoyouClient
from envoyou_core.inbox import open_inbox
from envoyou_core.simulator import Platform

EXAMPLE = Path(__file__).parent.parent / "fastapi_app"

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--patience", type=float, default=30, metavar="S", help="seconds that handlers may take")
    patience: float = parser.parse_args().patience
    console = Console(highlight=False)
    for number in ENDING:
        signal.signal(number, _leave)
    secret = f"whsec_{secrets.token_hex(16)}"
    try:
        with (
            tempfile.TemporaryDirectory(prefix="envoyou-demo-", ignore_cleanup_errors=True) as place,
            OnCall() as on_call,
        ):
            folder = Path(place)
            database = folder / "app.db"
            inbox_url = f"sqlite:///{database}"
            settings = {
                "ENVOYOU_WEBHOOK_SECRET": secret,
                "DATABASE_URL": f"sqlite+aiosqlite:///{database}",
                "ON_CALL_URL": on_call.url,
            }
            show = make_show(console)
            show.starting()
            with (
                Server(EXAMPLE, folder, settings) as server,
                Platform(timeout=patience) as platform,
                EnvoyouClient(platform.api_key, platform.base_url) as client,
            ):
                client.webhooks.create(url=f"{server.url}{PATH}", events=EVENT_TYPES, secret=secret)
                run = Run(
                    make_cases(secret),
                    server=server,
                    platform=platform,
                    inbox=open_inbox(inbox_url),
                    on_call=on_call,
                    patience=patience,
                )
                with show.following(run):
                    run.go(pause=show.pause)
                show.verdict(run)
                return 0 if run.as_promised else 1
    except ServerError as error:
        console.print(f"[bold red]The demonstration could not be held:[/] {error}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted: the server was stopped.[/]")
        return 130


def _leave(_signal: int, _frame: FrameType | None) -> None:
    # Ignore a second signal, which a terminal and tox both send, so that it does not interrupt the cleanup.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
