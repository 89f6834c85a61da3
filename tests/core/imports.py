"""Reads the imports of a module from its source, and tells which of them break law 1."""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CORE = "envoyou_core"
FRAMEWORKS_OF = {
    "envoyou_django": {"django", "asgiref", "rest_framework", "ninja"},
    "envoyou_flask": {"flask", "werkzeug", "quart"},
    "envoyou_fastapi": {"fastapi", "starlette", "litestar", "aiohttp", "tornado"},
}
FRAMEWORKS = frozenset().union(*FRAMEWORKS_OF.values())

Exports = Mapping[str, frozenset[str]]
"""The public modules of the core, each with the names in its ``__all__``."""


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    source: str
    is_package: bool = False

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def modules_of(root: Path) -> Iterator[Module]:
    """The modules below the package folder ``root``."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        yield Module(name, path.read_text(encoding="utf-8"), is_package)


def exports_of(modules: Iterable[Module], public: Collection[str]) -> dict[str, frozenset[str]]:
    """The names in ``__all__`` of each of the modules that are ``public``."""
    return {
        module.name: names
        for module in modules
        if module.name in public and (names := _declared(ast.parse(module.source))) is not None
    }


def _declared(tree: ast.Module) -> frozenset[str] | None:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return frozenset(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return frozenset(ast.literal_eval(value))
    return None


@dataclass(frozen=True)
class Import:
    """``import module``, or ``from module import name``, as an absolute path."""

    line: int
    module: str
    name: str | None
    bound: str | None

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports_of(module: Module) -> Iterator[Import]:
    """Every import in ``module``, at its top or inside a function, by statement or by call."""
    for node in ast.walk(ast.parse(module.source)):
        match node:
            case ast.Import():
                for alias in node.names:
                    if alias.asname:
                        yield Import(node.lineno, alias.name, None, alias.asname)
                    else:
                        yield Import(node.lineno, alias.name, None, alias.name.partition(".")[0])
            case ast.ImportFrom():
                origin = _absolute(module, node)
                for alias in node.names:
                    yield Import(node.lineno, origin, alias.name, alias.asname or alias.name)
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if _imports(node.func):
                yield Import(node.lineno, name, None, None)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = module.package.split(".")
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


def _imports(function: ast.expr) -> bool:
    match function:
        case ast.Name(id="__import__" | "import_module"):
            return True
        case ast.Attribute(attr="import_module"):
            return True
    return False


def breaks_in_core(module: Module) -> list[str]:
    """What ``module`` of the core imports against law 1: a framework, or an adapter."""
    forbidden = FRAMEWORKS | FRAMEWORKS_OF.keys()
    return [f"{module.name}:{item.line} imports {item.top}" for item in imports_of(module) if item.top in forbidden]


def breaks_in_adapter(module: Module, exports: Exports) -> list[str]:
    """What ``module`` of an adapter imports against law 1.

    That is another adapter, another adapter's framework, or a name that the core does not export.
    """
    adapter = module.name.partition(".")[0]
    forbidden = (FRAMEWORKS - FRAMEWORKS_OF[adapter]) | (FRAMEWORKS_OF.keys() - {adapter})
    breaks = []
    bound = {}
    for item in imports_of(module):
        if item.top in forbidden:
            breaks.append(f"{module.name}:{item.line} imports {item.top}")
        if item.top != CORE:
            continue
        path = item.module if item.name is None else f"{item.module}.{item.name}"
        if not _is_public(item, exports):
            breaks.append(f"{module.name}:{item.line} imports {path}, which is not public; see {CORE}.adapter")
        elif path in exports and item.bound:
            bound[item.bound] = CORE if item.bound == CORE else path
    for line, path in _uses(module, bound):
        if not _is_exported(path, exports):
            breaks.append(f"{module.name}:{line} uses {path}, which is not public")
    return breaks


def _is_public(item: Import, exports: Exports) -> bool:
    if item.name is None:
        return item.module in exports
    return item.name in exports.get(item.module, ()) or f"{item.module}.{item.name}" in exports


def _is_exported(path: str, exports: Exports) -> bool:
    """Whether the path leads through public modules to one of them or to an exported name."""
    module, *names = path.split(".")
    for name in names:
        if f"{module}.{name}" in exports:
            module = f"{module}.{name}"
        else:
            return name in exports[module]
    return True


def _uses(module: Module, bound: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The attribute paths in ``module`` that start from a module of the core, in full."""
    inner = set()
    for node in ast.walk(ast.parse(module.source)):  # outer nodes come first
        if not isinstance(node, ast.Attribute) or node in inner:
            continue
        names = []
        while isinstance(node, ast.Attribute):
            inner.add(node)
            names.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in bound:
            yield node.lineno, ".".join([bound[node.id], *reversed(names)])
