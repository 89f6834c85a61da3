"""Checks of files and of the disks that they are on."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from envoyou_core.doctor.findings import Finding

__all__ = ["check_disk", "check_private"]

LITTLE: Final = 1024**3
"""Bytes of free space below which there is a warning."""

TOO_LITTLE: Final = 100 * 1024**2
"""Bytes of free space below which there is a problem."""

OF_OTHERS: Final = stat.S_IRWXO
OF_GROUP: Final = stat.S_IRWXG


def check_private(check: str, path: Path, name: str) -> Iterator[Finding]:
    """Check that a file is private.

    Args:
        check: the name of the check.
        path: the file.
        name: what the file is, such as `the inbox`.
    """
    mode = path.stat().st_mode
    shown = f"{stat.S_IMODE(mode):04o}"
    if mode & OF_OTHERS:
        yield Finding.problem(
            check, f"{name} {path} can be read or written by every user ({shown})", f"chmod o= {path}"
        )
    elif mode & OF_GROUP:
        yield Finding.warning(
            check,
            f"{name} {path} can be read or written by its group ({shown})",
            f"chmod 600 {path}, unless the group shares it on purpose",
        )
    else:
        yield Finding.ok(check, f"{name} {path} can be read by its owner only ({shown})")
    if hasattr(os, "geteuid") and (owner := path.stat().st_uid) != os.geteuid():
        yield Finding.warning(
            check,
            f"{name} {path} belongs to another user (id {owner}) than this command's (id {os.geteuid()})",
            "run the commands as the user of the application",
        )


def check_disk(paths: Iterable[tuple[str, Path]]) -> Iterator[Finding]:
    """Check that there is room on the disks.

    Args:
        paths: what is stored where, such as `the inbox` and its file, which need not exist.
    """
    for name, path in paths:
        folder = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(folder).free
        text = f"{free / 1024**3:.1f} GiB are free for {name} in {path.parent}"
        if free < TOO_LITTLE:
            yield Finding.problem("disk", text, "make room: without it, deliveries are answered 503")
        elif free < LITTLE:
            yield Finding.warning("disk", text, "make room, or shorten the retention")
        else:
            yield Finding.ok("disk", text)
