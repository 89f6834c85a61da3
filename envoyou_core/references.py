"""The place of an application, `MODULE:NAME`: named by an option, `ENVOYOU_APP` or pyproject.toml, and imported."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import tomllib
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from envoyou_core.errors import ConfigurationError
from envoyou_core.redaction import printable, redact

__all__ = ["ApplicationImportError", "Reference", "find_reference", "import_object"]

VARIABLE: Final = "ENVOYOU_APP"
SETTINGS: Final = ("app",)
"""The keys of `[tool.envoyou]`."""

SECRET_WORDS: Final = ("secret", "passw", "token", "key", "credential")


@dataclass(frozen=True, slots=True)
class Reference:
    """The place of an application.

    Attributes:
        text: `MODULE:NAME` or `MODULE`.
        folder: where its module is searched first.
    """

    text: str
    folder: Path


class ApplicationImportError(ConfigurationError):
    """The application's module has failed. `shown` is its traceback, without the frames of this library's caller."""

    def __init__(self, text: str, shown: str) -> None:
        super().__init__(text)
        self.shown = shown


def find_reference(option: str | None) -> Reference | None:
    """Return the application that is named by the option `--app`, else the environment, else pyproject.toml.

    Raises:
        ConfigurationError: pyproject.toml cannot be read, or has an unknown or a secret setting.
    """
    here = Path.cwd()
    if text := option or os.environ.get(VARIABLE):
        return Reference(text, here)
    file = next((file for folder in (here, *here.parents) if (file := folder / "pyproject.toml").is_file()), None)
    if file is None or (text := _app_in(file)) is None:
        return None
    return Reference(text, file.parent)


def import_object(reference: Reference, *, default_name: str, how: str) -> Any:
    """Import what `reference` names.

    Args:
        reference: the place.
        default_name: the name in the module, if the reference is that of a module.
        how: how to name an application, for errors.

    Raises:
        ConfigurationError: there is no such module or name.
        ApplicationImportError: the module has failed.
    """
    module_name, _, name = reference.text.partition(":")
    value = _import(module_name, reference)
    for part in (name or default_name).split("."):
        if not hasattr(value, part):
            raise ConfigurationError(f"the module {module_name!r} has no {name or default_name!r}: {how}")
        value = getattr(value, part)
    return value


def _app_in(file: Path) -> str | None:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from error
    tool = document.get("tool", {})
    settings = tool.get("envoyou", {}) if isinstance(tool, dict) else {}
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{file}: [tool.envoyou] must be a table")
    for key in settings:
        _check_key(key, file)
    text = settings.get("app")
    if text is not None and not (isinstance(text, str) and text):
        raise ConfigurationError(f'{file}: [tool.envoyou] app must be text such as "hooks:webhooks"')
    return text


def _check_key(key: str, file: Path) -> None:
    if key in SETTINGS:
        return
    if any(word in key.lower() for word in SECRET_WORDS):
        raise ConfigurationError(
            f"{file}: [tool.envoyou] {key} looks like a secret, which does not belong in a file that is committed; "
            "use the variable ENVOYOU_WEBHOOK_SECRET, or ENVOYOU_WEBHOOK_SECRET_FILE"
        )
    close = difflib.get_close_matches(key.lower(), SETTINGS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known settings: {', '.join(SETTINGS)}"
    raise ConfigurationError(f"{file}: unknown setting [tool.envoyou] {key}; {hint}")


def _import(module_name: str, reference: Reference) -> Any:
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigurationError(f"expected MODULE:NAME, such as hooks:webhooks, got {reference.text!r}")
    if str(reference.folder) not in sys.path:
        sys.path.insert(0, str(reference.folder))
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"cannot import {reference.text!r}: there is no module {error.name!r}, neither in {reference.folder} "
                "nor installed"
            ) from None
        raise _failed(error, reference) from None
    except Exception as error:
        raise _failed(error, reference) from None


def _failed(error: Exception, reference: Reference) -> ApplicationImportError:
    frames = _frames_of_application(error.__traceback__)
    text = "".join(traceback.format_exception(error.with_traceback(frames)))
    shown = redact(printable(text, keep="\n\t"))
    return ApplicationImportError(f"cannot import the application {reference.text!r}; its traceback is above", shown)


def _frames_of_application(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of this module and of the import system."""
    while frames is not None and (
        frames.tb_frame.f_code.co_filename in {__file__, importlib.__file__}
        or frames.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        frames = frames.tb_next
    return frames
