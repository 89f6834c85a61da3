"""Shows the values of default arguments in the reference, instead of the names of constants."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from functools import reduce
from importlib import import_module
from typing import Any

import griffe

PLAIN = (int, float, str, bytes, tuple, type(None))


class DefaultValues(griffe.Extension):
    """Replaces a default such as `DEFAULT_TOLERANCE` by its value, `300`."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Go through the functions of the core. Django's adapter cannot be imported without a project's settings."""
        if pkg.name != "envoyou_core":
            return
        for function in _functions_in(pkg):
            named = [it for it in function.parameters if isinstance(it.default, griffe.ExprName | griffe.ExprAttribute)]
            if named:
                values = inspect.signature(_imported(function)).parameters
                for parameter in named:
                    value = values[parameter.name].default
                    # Others may hold what must not be shown, as `os.environ` does.
                    if isinstance(value, PLAIN) or is_dataclass(value):
                        parameter.default = repr(value)
                    elif inspect.isroutine(value):
                        parameter.default = f"{value.__module__}.{value.__qualname__}"


def _functions_in(scope: griffe.Module | griffe.Class) -> list[griffe.Function]:
    found = []
    for member in scope.members.values():
        if isinstance(member, griffe.Function):
            found.append(member)
        elif isinstance(member, griffe.Module | griffe.Class):
            found += _functions_in(member)
    return found


def _imported(function: griffe.Function) -> Any:
    path = function.path.removeprefix(f"{function.module.path}.").split(".")
    return reduce(getattr, path, import_module(function.module.path))
