"""The pictures of a terminal on the landing page show what the commands print.

`ENVOYOU_TEST_SCREENSHOTS=docs/images` takes them anew, in the directory that it names.
"""

import html
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from envoyou_core import PermanentError, RetryPolicy, Webhooks
from envoyou_core.inbox import NewEvent
from envoyou_core.testing import sample_event

PROJECT = Path(__file__).parents[2]
IMAGES = PROJECT / "docs/images"
SCREENSHOTS = os.environ.get("ENVOYOU_TEST_SCREENSHOTS")

PICTURES = {
    "stats": ("envoyou --app hooks:webhooks stats", 50),
    "events": ("envoyou --app hooks:webhooks events list --limit 8", 124),
}
"""The command in each picture, and the width of its terminal in characters."""

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
APPLICATION = f"""
from envoyou_core import Webhooks

webhooks = Webhooks(secret="whsec_terminal", handoff="manual", clock=lambda: {NOW.timestamp()})
"""

MORNING = [
    ("evt_2b71c09f", "user.created"),
    ("evt_94d0e8a3", "auth.login"),
    ("evt_5c1f77de", "user.updated"),
    ("evt_e07b3d52", "user.created"),
    ("evt_1a9c64f8", "auth.login"),
    ("evt_c83e50b7", "system.incident"),
    ("evt_6f2d91ca", "user.deleted"),
    ("evt_b4078e1d", "user.created"),
]
"""The id and the type of each event of the last minutes, oldest first."""

FAILING = {
    "evt_e07b3d52": ConnectionError("the mail server does not answer"),
    "evt_6f2d91ca": PermanentError("no account for user_123"),
}

FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" class="terminal" viewBox="0 0 {width} {height}" \
width="PIXELS" role="img" aria-label="LABEL">
  <style>
    .{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
    .{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">{matrix}</g>
  </g>
</svg>
"""
"""Rich's own format loads a font from another host."""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a terminal and a short path below /tmp")

SHOWN_FOLDER = "/srv/my-store"
"""Replaces the path of the application, which is as long, so that the columns stay where they are."""


@pytest.fixture(scope="module")
def folder():
    """A directory with an application and its inbox, after a morning on which two events failed."""
    with TemporaryDirectory(prefix="", dir="/tmp") as path:
        assert len(path) == len(SHOWN_FOLDER)
        make_application(Path(path))
        yield Path(path)


def make_application(folder):
    (folder / "hooks.py").write_text(APPLICATION)
    now = NOW - timedelta(minutes=len(MORNING))
    webhooks = Webhooks(
        secret="whsec_terminal",
        inbox=f"sqlite:///{folder}/envoyou.db",
        handoff="manual",
        retry=RetryPolicy(initial_delay=60),
        clock=lambda: now.timestamp(),
    )

    @webhooks.on("user.*", "auth.*")
    def keep_account(event):
        if (error := FAILING.get(event.id)) is not None:
            raise error

    for event_id, event_type in MORNING:
        webhooks.inbox.add(NewEvent(sample_event(event_type, id=event_id, created=int(now.timestamp())))).result(20)
        webhooks.drain()
        now += timedelta(seconds=57)
    webhooks.inbox.add(NewEvent(sample_event("user.verified", id="evt_d15a2e60", created=int(now.timestamp())))).result(
        20
    )
    webhooks.inbox.close()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_what_its_command_prints(folder, name):
    command, width = PICTURES[name]
    picture = IMAGES / f"terminal-{name}.svg"
    written = run_in_terminal(command, width, folder)
    shown = Text.from_ansi(written.replace(str(folder), SHOWN_FOLDER))
    if SCREENSHOTS:
        picture = Path(SCREENSHOTS) / picture.name
        picture.write_text(draw(name, shown), encoding="utf-8")
    expected = [f"$ {command}", *(line.rstrip() for line in shown.plain.splitlines())]
    assert text_of(picture.read_text(encoding="utf-8")) == [line for line in expected if line]


def run_in_terminal(command, width, folder):
    """Return what the command writes to a terminal, with the codes for its colours."""
    program, *arguments = command.split()
    reader, terminal = pty.openpty()
    colors = {"NO_COLOR", "FORCE_COLOR", "COLORTERM"}
    environment = {name: value for name, value in os.environ.items() if name not in colors}
    environment |= {"TERM": "xterm-256color", "COLUMNS": str(width), "LINES": "40"}
    path = Path(sys.executable).with_name(program)
    process = subprocess.Popen([path, *arguments], cwd=folder, env=environment, stdin=terminal, stdout=terminal)
    os.close(terminal)
    written = b""
    while chunk := read_from(reader):
        written += chunk
    os.close(reader)
    assert process.wait(60) == 0
    return written.decode().replace("\r\n", "\n")


def read_from(terminal):
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux reports the end of a terminal as an error.
        return b""


def draw(name, shown):
    command, width = PICTURES[name]
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(shown, end="")
    code_format = FORMAT.replace("LABEL", html.escape(f"Output of {command}")).replace("PIXELS", f"{width * 8.5:.0f}")
    drawn = console.export_svg(title="", theme=SVG_EXPORT_THEME, code_format=code_format, unique_id=f"terminal-{name}")
    return "\n".join(line.rstrip() for line in drawn.splitlines() if line.strip()) + "\n"


def text_of(picture):
    """Return the lines of text of a picture that Rich has drawn."""
    lines = {}
    for x, y, text in re.findall(r'<text class="\S+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', picture):
        column = round(float(x) / 12.2)
        line = lines.setdefault(float(y), "").ljust(column)
        lines[float(y)] = line + html.unescape(text).replace("\xa0", " ")
    return [line.rstrip() for _, line in sorted(lines.items()) if line.strip()]
