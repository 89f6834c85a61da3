"""The SQLite file of an inbox or a spool: its path and its creation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from envoyou_core.errors import ConfigurationError

__all__ = ["OWNER_ONLY", "FileStore", "SqliteFile", "location_of", "refuse_creation"]

OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A SQLite file for events.

    Attributes:
        path: the absolute path, so that a change of the working directory has no effect.
        is_relative: whether the configured path is relative to the working directory.
    """

    path: Path
    is_relative: bool

    @classmethod
    def at(cls, path: str) -> SqliteFile:
        """Return the file at `path`, which may be relative to the current working directory."""
        return cls(Path(os.path.abspath(path)), is_relative=not os.path.isabs(path))  # noqa: PTH100, PTH117

    @property
    def url(self) -> str:
        """The URL of the file, independent of the working directory."""
        return f"sqlite:///{self.path}"

    def exists(self) -> bool:
        """Return whether the file exists; also true if the path cannot be accessed."""
        try:
            return self.path.exists()
        except OSError:
            return True

    def create(self) -> None:
        """Create the file, readable and writable by its owner only, unless it exists.

        SQLite would create the file with the permissions of the umask; it gives `-wal` and `-shm` those of the file.
        The permissions of an existing file are not changed, because a group may share it on purpose.

        Raises:
            ConfigurationError: the file cannot be created.
        """
        if self.exists():
            return
        try:
            # Resolve a dangling link, which O_EXCL treats as an existing file but SQLite follows.
            os.close(os.open(self.path.resolve(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY))
        except FileExistsError:
            # Another process has created it.
            return
        except FileNotFoundError:
            raise ConfigurationError(
                f"cannot create {self.path}: the directory {self.path.parent} does not exist{self._relative_to}"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"cannot create {self.path}: {error.strerror}{self._relative_to}") from error

    def require(self, kind: str) -> None:
        """Check that the file exists.

        Args:
            kind: `inbox` or `spool`, for the error.

        Raises:
            ConfigurationError: the file does not exist; the message says what to do.
        """
        if self.exists():
            return
        advice = "check the path"
        if self.is_relative:
            advice = (
                f"run the command in the application's directory, or set {kind} (ENVOYOU_{kind.upper()}) to an "
                f"absolute path in all processes, such as sqlite:////srv/app/{self.path.name}"
            )
        advice += "; in a new installation, start the web application first, which creates the file"
        raise ConfigurationError(f"no {kind} exists at {self.path}{self._relative_to}: {advice}")

    @property
    def _relative_to(self) -> str:
        return f" (the configured path is relative to the working directory, {Path.cwd()})" if self.is_relative else ""


@runtime_checkable
class FileStore(Protocol):
    """An inbox or a spool that may use a SQLite file."""

    file: SqliteFile | None
    creates_file: bool


def refuse_creation(store: object, *, at_absolute_path: bool) -> None:
    """Make `open` fail if the SQLite file of an inbox or a spool does not exist. Other stores are not changed.

    Args:
        store: the inbox or the spool, or `None`.
        at_absolute_path: whether this also applies to a file with an absolute path.
    """
    if isinstance(store, FileStore) and store.file is not None and (at_absolute_path or store.file.is_relative):
        store.creates_file = False


def location_of(store: object) -> str:
    """Return the location of an inbox for display, without a password, or its type if it has no location."""
    return str(getattr(store, "location", type(store).__name__))
