"""When each job was done, in shared memory of all processes of a run.

Recording a job stores eight bytes, without a lock, a system call or a network. The cost is the same for all workers
and negligible beside the measured work.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

from benchmarks.measuring import Round

__all__ = ["Ledger"]


class Ledger:
    """One slot for each job, by its number, which is zero until the job is done."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as stream:
            self._times = memoryview(mmap.mmap(stream.fileno(), 0)).cast("d")

    @classmethod
    def create(cls, file: Path, jobs: int) -> Ledger:
        """Create a ledger for `jobs` jobs."""
        file.write_bytes(bytes(8 * jobs))
        return cls(file)

    def note(self, job: int) -> None:
        """Record that the job is done."""
        # This clock is the same in all processes of a machine.
        self._times[job] = time.monotonic()

    @property
    def done(self) -> int:
        """The number of different jobs that are done."""
        return sum(map(bool, self._times))

    @property
    def complete(self) -> bool:
        """Whether all jobs are done."""
        return self.done == len(self._times)

    def round(self) -> Round:
        """Return the jobs per second from the first to the last, without the start and the end of the worker."""
        times = list(filter(None, self._times))
        return Round(done=len(times), rate=(len(times) - 1) / (max(times) - min(times)))
