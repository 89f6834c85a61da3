"""The SQLite file of an inbox or a spool: where it is, and how it comes to exist."""

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
    """A file that holds events.

    Attributes:
        path: absolute, so that a process that changes its working directory keeps its file.
        is_relative: whether the setting gave a relative path, which is another file in another working directory.
    """

    path: Path
    is_relative: bool

    @classmethod
    def at(cls, path: str) -> SqliteFile:
        """The file at `path`, which is relative to the current working directory unless it is absolute."""
        return cls(Path(os.path.abspath(path)), is_relative=not os.path.isabs(path))  # noqa: PTH100, PTH117

    @property
    def url(self) -> str:
        """The URL that means this file in any working directory."""
        return f"sqlite:///{self.path}"

    def exists(self) -> bool:
        """Whether the file exists; a path that cannot be read counts as one that does."""
        try:
            return self.path.exists()
        except OSError:
            return True

    def create(self) -> None:
        """Create the file, readable and writable by its owner only, unless it exists.

        SQLite would create it with the rights that the umask leaves; it gives `-wal` and `-shm` those of the file. An
        existing file keeps its own: it may be shared with a group on purpose.

        Raises:
            ConfigurationError: the file cannot be created.
        """
        if self.exists():
            return
        try:
            # Not through a dangling link, which O_EXCL takes for an existing file and SQLite would follow.
            os.close(os.open(self.path.resolve(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY))
        except FileExistsError:
            # Another process was first.
            return
        except FileNotFoundError:
            raise ConfigurationError(
                f"cannot create {self.path}: the directory {self.path.parent} does not exist{self._relative_to}"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"cannot create {self.path}: {error.strerror}{self._relative_to}") from error

    def require(self, kind: str) -> None:
        """Refuse to go on without the file.

        Args:
            kind: of what is stored there, `inbox` or `spool`, for the error.

        Raises:
            ConfigurationError: it does not exist; the error says what to do.
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
    """An inbox or a spool that may be a SQLite file."""

    file: SqliteFile | None
    creates_file: bool


def refuse_creation(store: object, *, at_absolute_path: bool) -> None:
    """Let `open` fail if the file of an inbox or a spool does not exist; of others, nothing changes.

    Args:
        store: the inbox or the spool; `None` for neither.
        at_absolute_path: whether also a file at an absolute path must exist.
    """
    if isinstance(store, FileStore) and store.file is not None and (at_absolute_path or store.file.is_relative):
        store.creates_file = False


def location_of(store: object) -> str:
    """Where an inbox keeps its events, for people, without a password; its type, if it does not say so."""
    return str(getattr(store, "location", type(store).__name__))
