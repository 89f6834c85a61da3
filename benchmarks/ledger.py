"""When each job was done, in memory that all processes of a run share.

To note a job is one store of eight bytes, without a lock, a system call or a network: the same for every contestant,
and next to nothing beside what is measured.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

from benchmarks.measuring import Round

__all__ = ["Ledger"]


class Ledger:
    """One place for each job, by its number, empty until it is done."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._times = memoryview(mmap.mmap(opened.fileno(), 0)).cast("d")

    @classmethod
    def create(cls, file: Path, jobs: int) -> Ledger:
        """A new one, of as many empty places."""
        file.write_bytes(bytes(8 * jobs))
        return cls(file)

    def note(self, job: int) -> None:
        """The job is done."""
        # The same clock in all processes of a machine.
        self._times[job] = time.monotonic()

    @property
    def done(self) -> int:
        """How many different jobs are done."""
        return sum(map(bool, self._times))

    @property
    def complete(self) -> bool:
        """Whether all jobs are done."""
        return self.done == len(self._times)

    def round(self) -> Round:
        """The jobs a second from the first that was done to the last: no side's start or end counts."""
        times = list(filter(None, self._times))
        return Round(done=len(times), rate=(len(times) - 1) / (max(times) - min(times)))
