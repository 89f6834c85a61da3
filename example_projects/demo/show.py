"""Shows the progress: as a live table on a terminal, otherwise as plain lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Protocol

from cases import DUPLICATE, PATH, Answer
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from run import Outcome, Run

from envoyou_core import EVENT_TYPES
from envoyou_core.inbox import Status

__all__ = ["Show", "make_show"]

TITLE = "EnvoyOU webhooks: the FastAPI example, over real HTTP"
COLOUR = {
    Status.RECEIVED: "blue",
    Status.PROCESSING: "blue",
    Status.PROCESSED: "green",
    Status.IGNORED: "cyan",
    Status.FAILED: "yellow",
    Status.DEAD: "bold red",
}
WIDTH_FOR_TABLE, WIDTH_FOR_WORDS, WIDTH_FOR_ERRORS = 72, 99, 128
"""Columns from which on there is a table at all, its answers are more than a status, and errors have a column."""


class Show(Protocol):
    """A way of showing a run. `pause` is how many seconds lie between two deliveries."""

    pause: float

    def starting(self) -> None:
        """Show the title before the server starts."""

    def following(self, run: Run) -> AbstractContextManager[None]:
        """Show the progress during the run."""

    def verdict(self, run: Run) -> None:
        """Show the totals and whether all outcomes are as expected."""


def make_show(console: Console) -> Show:
    """Return a live table for a suitable terminal, plain lines otherwise."""
    # With FORCE_COLOR, rich assumes a terminal; colours may go into a file, cursor movements may not.
    shows_tables = console.encoding.startswith("utf") and console.width >= WIDTH_FOR_TABLE
    live = sys.stdout.isatty() and shows_tables and not console.is_dumb_terminal
    return LiveTable(console) if live else PlainLines(console)


class PlainLines:
    """Prints one line for each change."""

    pause = 0.0

    def __init__(self, console: Console) -> None:
        self._console = console

    def starting(self) -> None:
        self._print(Text(TITLE, "bold"))

    @contextmanager
    def following(self, run: Run) -> Iterator[None]:
        self._print_pairs(_places(run))
        run.changed = self._changed
        yield

    def verdict(self, run: Run) -> None:
        self._print(Text())
        self._print_pairs(_totals(run))
        self._print(_conclusion(run))

    def _print_pairs(self, pairs: Iterable[tuple[str, Text]]) -> None:
        for label, text in pairs:
            self._print(Text(f"{label:<9}").append_text(text))

    def _changed(self, outcome: Outcome) -> None:
        case, answer, record = outcome.case, outcome.answer, outcome.record
        if answer is None:
            return
        if outcome.faults is None:
            mark = Text("...", "yellow")
        else:
            mark = Text("NO ", "bold red") if outcome.faults else Text("ok ", "green")
        line = Text.assemble(
            mark,
            f" {case.type:<24}  {case.about:<26}  ",
            (str(answer.status), _answer_colour(answer)),
            f" {json.dumps(dict(answer.body))}  ",
        )
        if record is None:
            line.append("not in the inbox", "dim")
        else:
            line.append(record.status, COLOUR[record.status])
            line.append(f", {_counted(record.attempts, 'attempt')}")
        if outcome.faults is None and outcome.last_error:
            line.append(f": {outcome.last_error}", "yellow")
        self._print(line)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


class LiveTable:
    """A table that fills during the run. Its size is fixed, so that it does not jump."""

    pause = 0.15

    def __init__(self, console: Console) -> None:
        self._console = console

    def starting(self) -> None:
        self._console.print()
        self._console.print(Text(TITLE, "bold"))

    @contextmanager
    def following(self, run: Run) -> Iterator[None]:
        self._print_pairs(_places(run))
        with Live(_Table(run), console=self._console, refresh_per_second=10):
            yield

    def verdict(self, run: Run) -> None:
        self._print_pairs(_totals(run))
        self._console.print()
        self._console.print(_conclusion(run))
        self._console.print()

    def _print_pairs(self, pairs: Iterable[tuple[str, Text]]) -> None:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", width=7)
        grid.add_column()
        for label, text in pairs:
            grid.add_row(label, text)
        self._console.print(grid)


class _Table:
    """The table and the progress of a run, drawn anew each time it is asked for."""

    HEIGHT_AROUND = 10
    """Lines that are not rows: title, head, progress, and what the terminal itself needs."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._began = time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
        table.add_column("event type", width=24, no_wrap=True)
        # On a narrow terminal, only this column is shortened.
        answer = 23 if width >= WIDTH_FOR_WORDS else 6
        table.add_column("delivery", width=min(26, width - 50 - answer), no_wrap=True, overflow="ellipsis")
        table.add_column("answer", width=answer, no_wrap=True, overflow="ellipsis")
        table.add_column("inbox", width=10, no_wrap=True)
        table.add_column("tries", width=5, no_wrap=True, justify="right")
        if width >= WIDTH_FOR_ERRORS:
            table.add_column("last error", ratio=1, no_wrap=True, overflow="ellipsis")
            table.expand = True
        table.add_column("", width=1, no_wrap=True)
        for outcome in self._window(console.height):
            table.add_row(*_row(outcome, width))
        yield Group(Text(), table, Text(), self._progress(width), self._news())

    def _window(self, height: int) -> list[Outcome]:
        """Return all rows, or during the run, those that fit the terminal."""
        outcomes = self._run.outcomes
        room = max(height - self.HEIGHT_AROUND, 3)
        if self._run.seconds or len(outcomes) <= room:
            return outcomes
        last = max(sum(outcome.answer is not None for outcome in outcomes), room)
        return outcomes[last - room : last]

    def _progress(self, width: int) -> Table:
        total = len(self._run.outcomes)
        judged = sum(outcome.faults is not None for outcome in self._run.outcomes)
        wrong = any(outcome.faults for outcome in self._run.outcomes)
        seconds = self._run.seconds or time.monotonic() - self._began
        style = "red" if wrong else "green"
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(total, judged, width=min(48, width - 40), complete_style=style, finished_style=style)
        grid.add_row(bar, f"{judged:>2} of {total} settled", Text(f"{seconds:4.1f} s", "dim"))
        return grid

    def _news(self) -> Text:
        record = self._run.waiting
        if record is None or record.next_attempt_at is None or self._run.seconds:
            sent = sum(outcome.answer is not None for outcome in self._run.outcomes)
            sending = sent < len(self._run.outcomes)
            return Text(f"sending {self._run.outcomes[sent].case.type}" if sending else "", "dim")
        seconds = max(0.0, (record.next_attempt_at - datetime.now(UTC)).total_seconds())
        failed = _counted(record.attempts, "failed attempt")
        text = f"{record.event.type}: {failed}, the next one in {seconds:.1f} s"
        return Text(text, "yellow", no_wrap=True, overflow="ellipsis")


def _row(outcome: Outcome, width: int) -> list[Text]:
    case, answer, record = outcome.case, outcome.answer, outcome.record
    if answer is None:
        blank = [Text(case.type, "dim"), Text(case.about, "dim"), Text(), Text(), Text()]
        return [*blank, *([Text()] if width >= WIDTH_FOR_ERRORS else []), Text()]
    answered = str(answer.status) if width < WIDTH_FOR_WORDS else f"{answer.status} {_words(answer)}"
    cells = [Text(case.type), Text(case.about), Text(answered, _answer_colour(answer))]
    if record is None:
        cells += [Text("—", "dim"), Text()]
    else:
        cells += [Text(record.status, COLOUR[record.status]), Text(str(record.attempts))]
    if width >= WIDTH_FOR_ERRORS:
        past = record is not None and record.status is Status.PROCESSED
        cells.append(Text(outcome.last_error or "", "dim" if past else "yellow"))
    return [*cells, _mark(outcome)]


def _mark(outcome: Outcome) -> Text:
    if outcome.faults is None:
        return Text("…", "yellow")
    return Text("✗", "bold red") if outcome.faults else Text("✓", "bold green")


def _answer_colour(answer: Answer) -> str:
    return "green" if 200 <= answer.status < 300 else "yellow" if 400 <= answer.status < 500 else "bold red"


def _words(answer: Answer) -> str:
    """Return the error code of the body, or the names of its true members."""
    return str(answer.body.get("error") or ", ".join(name for name, value in answer.body.items() if value is True))


def _places(run: Run) -> Iterator[tuple[str, Text]]:
    yield "server", Text.assemble(f"{run.server.url}{PATH}  ", (f"uvicorn, process {run.server.pid}", "dim"))
    yield "EnvoyOU", Text.assemble(f"{run.platform.base_url}  ", ("a local platform, in this process", "dim"))
    yield "inbox", Text.assemble("SQLite  ", (f"read here by process {os.getpid()}", "dim"))


def _totals(run: Run) -> Iterator[tuple[str, Text]]:
    answers = [outcome.answer for outcome in run.outcomes if outcome.answer is not None]
    accepted = sum(answer.status == 200 and answer != DUPLICATE for answer in answers)
    duplicates = sum(answer == DUPLICATE for answer in answers)
    refused = sum(answer.status == 401 for answer in answers)
    parts = [f"{accepted} accepted", _counted(duplicates, "duplicate"), f"{refused} refused"]
    if others := len(answers) - accepted - duplicates - refused:
        parts.append(f"{others} answered otherwise")
    yield "sent", Text(f"{_counted(len(answers), 'delivery', 'deliveries')}: {', '.join(parts)}")
    records = {outcome.record.event.id: outcome.record for outcome in run.outcomes if outcome.record is not None}
    states = Counter(record.status for record in records.values())
    kept = ", ".join(f"{states[status]} {status}" for status in Status if states[status])
    yield "kept", Text(f"{_counted(len(records), 'event')}: {kept or 'none'}")
    types = len(run.processed_types.intersection(EVENT_TYPES))
    yield "types", Text(f"{types} of the guide's {len(EVENT_TYPES)} event types processed")
    for outcome in run.outcomes:
        if outcome.last_error and outcome.record is not None:
            attempts = _counted(outcome.record.attempts, "attempt")
            yield "retried", Text(f"{outcome.case.type}, {attempts}; {outcome.last_error}")
    yield "took", Text(f"{run.seconds:.1f} s")


def _conclusion(run: Run) -> Text:
    if run.as_promised:
        return Text(f"All {len(run.outcomes)} deliveries came out as promised.", "bold green")
    text = Text("Not as promised:", "bold red")
    for outcome in run.outcomes:
        for fault in outcome.faults or ():
            text.append(f"\n  {outcome.case.type}{outcome.case.about and f' ({outcome.case.about})'}: {fault}", "red")
    for fault in run.faults:
        text.append(f"\n  in all: {fault}", "red")
    return text


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
