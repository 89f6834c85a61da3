"""What Linux shows of processes in `/proc`. Everything is `None` if it cannot be read, as on macOS and Windows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Stat", "boot_id", "pid_namespace", "read_stat", "shows_own_namespace"]

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Stat:
    """The state of a process.

    Attributes:
        started: when the operating system started it, in clock ticks after the boot.
        is_zombie: whether all its threads have ended. A process whose main thread alone has ended is not a zombie.
    """

    started: int
    is_zombie: bool


def boot_id() -> str | None:
    """Identify the boot of this machine. A container has that of its host."""
    return _read("sys/kernel/random/boot_id")[:64] or None


def pid_namespace() -> str | None:
    """Identify the namespace of this process's id."""
    try:
        return str((PROC / "self/ns/pid").readlink())[:64]
    except (OSError, ValueError):
        return None


def read_stat(pid: int | None = None) -> Stat | None:
    """Read the state of a process; by default, of this process."""
    # The name of the program, in parentheses, may contain spaces and parentheses.
    fields = _read(f"{'self' if pid is None else pid}/stat").rpartition(")")[2].split()
    try:
        return Stat(started=int(fields[19]), is_zombie=fields[0] in {"Z", "X"} and int(fields[17]) <= 1)
    except (IndexError, ValueError):
        return None


def shows_own_namespace() -> bool:
    """Whether `/proc` shows processes under the ids that they have for this process.

    In a new namespace, `/proc` shows those of the parent namespace until it is mounted anew.
    """
    for line in _read("self/status").splitlines():
        name, _, pids = line.partition(":")
        if name == "NSpid":
            # One id for each namespace, from that of `/proc` to that of the process.
            return pids.split() == [str(os.getpid())]
    return False


def _read(path: str) -> str:
    try:
        return (PROC / path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
