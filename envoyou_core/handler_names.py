"""The names of handlers that are not named by `on(..., name=...)`.

Such a handler has the qualified name of its function, without the module. So it has the same name in a process that
imports the module under another path. Only if functions of two modules have the same qualified name in one process, the
module is part of their names there. Other processes may know only one of the two: each handler is also known by the
name that it would have in those.
"""

from __future__ import annotations

import inspect
import os.path
import sys
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FunctionName", "function_name"]


@dataclass(frozen=True, slots=True)
class FunctionName:
    """The name of a handler's function.

    Attributes:
        short: its qualified name without the module.
        full: with the module.
        place: the file and line of its code; `None` if it has none.
    """

    short: str
    full: str
    place: tuple[str, int] | None = field(default=None, compare=False, repr=False)

    def clashes_with(self, other: FunctionName | None) -> bool:
        """Whether `other` is the name of a function of another module, and differs only by the module.

        A function of the same place is no other one: its module was imported under two names.
        """
        if other is None or self.short != other.short or self.full == other.full:
            return False
        return self.place is None or self.place != other.place


def function_name(function: Any) -> FunctionName | None:
    """Return the name of a function; `None` if it has none.

    Examples:
        >>> function_name(function_name)
        FunctionName(short='function_name', full='envoyou_core.handler_names.function_name')
    """
    short = getattr(function, "__qualname__", None)
    if short is None:
        return None
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = None if code is None else (code.co_filename, code.co_firstlineno)
    return FunctionName(short, f"{_module_of(function)}.{short}", place)


def _module_of(function: Any) -> str:
    module = str(getattr(function, "__module__", ""))
    if module != "__main__":
        return module
    # Another process may import the file that is run here.
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return module if file is None else os.path.splitext(os.path.basename(file))[0]  # noqa: PTH119, PTH122 - pathlib is slow to import
