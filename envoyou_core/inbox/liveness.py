"""Whether a process that holds leases is gone, so that they can end at once.

Only a process of the same boot and the same pid namespace is judged, and only if the operating system leaves no doubt.
Any other one may be live although it does not show here; its leases expire by themselves.
"""

from __future__ import annotations

import os
from typing import Protocol

from envoyou_core.inbox.proc_files import Stat, read_stat, shows_own_namespace
from envoyou_core.inbox.processes import Process

__all__ = ["LocalProcesses", "ProcessTable", "is_gone"]


class ProcessTable(Protocol):
    """The processes in the pid namespace of this process."""

    def exists(self, pid: int) -> bool:
        """Whether there may be a process with this id. False is certain."""

    def stat(self, pid: int) -> Stat | None:
        """Return the state of a process; `None` if it cannot be read."""


class LocalProcesses:
    """The process table of the operating system."""

    def exists(self, pid: int) -> bool:
        """Whether there may be a process with this id. False is certain."""
        if pid <= 0:
            # These ids have other meanings.
            return True
        try:
            # `/proc` may hide processes of other users. A signal with the number 0 only looks for the process.
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True
        return True

    def stat(self, pid: int) -> Stat | None:
        """Return the state of a process; `None` if it cannot be read."""
        return read_stat(pid) if pid > 0 and shows_own_namespace() else None


def is_gone(process: Process, observer: Process, table: ProcessTable) -> bool:
    """Whether a process has certainly ended.

    Args:
        process: the process, as an inbox lists it.
        observer: this process.
        table: the processes that exist now.
    """
    if process.boot_id is None or process.boot_id != observer.boot_id:
        return False
    # Containers have the boot of their host, and the same process ids.
    if process.pid_namespace is None or process.pid_namespace != observer.pid_namespace:
        return False
    if not table.exists(process.pid):
        return True
    stat = table.stat(process.pid)
    if stat is None:
        return False
    # An operating system uses process ids again.
    is_another = process.pid_started is not None and process.pid_started != stat.started
    return is_another or stat.is_zombie
