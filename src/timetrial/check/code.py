"""The Python of a submission as syntax trees, and what its names stand for. Nothing of it is imported or run."""

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from timetrial import syntax
from timetrial.check.report import Status
from timetrial.loading import Source

DEEPEST = 150
"""Levels of a syntax tree that the rules follow; ordinary code has a few dozen."""


def words(text: str) -> frozenset[str]:
    """The words of a text, for long lists of names."""
    return frozenset(text.split())


class Finding(NamedTuple):
    """What a static rule found at one place."""

    status: Status
    where: str
    message: str
    todo: str


@dataclass(frozen=True, kw_only=True)
class Module:
    """One file of the submission."""

    where: str
    """Its path within the submission's folder."""
    name: str
    """Its dotted name within the submission: `.submission`, `.pieces.helper`; that of a package is its folder's."""
    is_package: bool
    tree: ast.Module
    bindings: Mapping[str, str]
    """Names that imports bind anywhere in the file, and what they stand for: `jnp` for `jax.numpy`."""
    siblings: Mapping[str, "Module"] = field(repr=False)
    """All files of the submission, by name."""
    parameters: frozenset[int] = field(repr=False)
    """The `id`s of names that stand for a parameter of a function around them, and so for nothing else."""

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def at(self, node: ast.AST) -> str:
        """`file:line` of a node."""
        return f"{self.where}:{getattr(node, 'lineno', 1)}"

    def resolve(self, node: ast.AST) -> str | None:
        """The dotted name that an expression stands for (`jax.config.update`); None where it is no name.

        Names that nothing imports are taken for builtins where there are such, whatever the file assigns to them, and
        names of the submission's own modules for what those import under them. A parameter is no name of either.
        """
        if isinstance(node, ast.Name) and id(node) not in self.parameters:
            if node.id in self.bindings:
                return self._through_siblings(self.bindings[node.id])
            return f"builtins.{node.id}" if hasattr(builtins, node.id) else None
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value)
            return None if base is None else self._through_siblings(f"{base}.{node.attr}")
        return None

    def _through_siblings(self, dotted: str) -> str:
        """`.helper.jnp` is `jax.numpy` where helper.py imports it so."""
        for _ in range(len(self.siblings) + 1):  # each round leaves a file; a circle of imports ends with its name
            module, _, name = dotted.rpartition(".")
            if module not in self.siblings or dotted in self.siblings or name not in self.siblings[module].bindings:
                return dotted
            dotted = self.siblings[module].bindings[name]
        return dotted

    def strings(self) -> Iterator[ast.Constant]:
        """The strings that the code can use: all but docstrings, and other strings that are statements."""
        idle = {id(node.value) for node in self.nodes() if isinstance(node, ast.Expr)}
        for node in self.nodes():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in idle:
                yield node

    def imported(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        """The dotted names that an import statement names: modules, or names within the one that it imports from."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = _base(node, self.name, is_package=self.is_package)
        return [f"{base.rstrip('.')}.{alias.name}" for alias in node.names]


def parse(source: Source) -> tuple[dict[str, Module], list[Finding]]:
    """The submission's Python files, by name; and what is not Python."""
    modules: dict[str, Module] = {}
    broken: list[Finding] = []
    for path in source.files():
        if path.suffix != ".py":
            continue
        where = path.relative_to(source.folder)
        try:
            tree = syntax.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            at = f"{where.as_posix()}:{getattr(error, 'lineno', None) or 1}"
            why = error.msg if isinstance(error, SyntaxError) else error
            broken.append(Finding("fail", at, f"not Python: {why}", "mend the syntax"))
            continue
        if _depth(tree) > DEEPEST:
            broken.append(Finding("fail", where.as_posix(), f"nested more than {DEEPEST} deep", "split it up"))
            continue
        is_package = where.name == "__init__.py"
        name = "." + ".".join(where.parent.parts if is_package else where.with_suffix("").parts)
        modules[name] = Module(
            where=where.as_posix(),
            name=name,
            is_package=is_package,
            tree=tree,
            bindings=dict(_bindings(tree, name, is_package=is_package)),
            siblings=modules,
            parameters=frozenset(_parameters(tree)),
        )
    return modules, broken


def _depth(tree: ast.AST) -> int:
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _parameters(tree: ast.Module) -> Iterator[int]:
    """The `id`s of the names in functions' bodies that stand for a parameter of theirs.

    Classes within a function are left out: what their bodies do not bind themselves they find among the builtins.
    """
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        given = function.args
        own = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        inside = list(_outside_classes([function.body] if isinstance(function, ast.Lambda) else function.body))
        names = {argument.arg for argument in own if argument is not None}
        for node in inside:
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                names.difference_update(node.names)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names -= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        yield from (id(node) for node in inside if isinstance(node, ast.Name) and node.id in names)


def _outside_classes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.ClassDef):
            yield node
            waiting += ast.iter_child_nodes(node)


def _bindings(tree: ast.Module, name: str, *, is_package: bool) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, name, is_package=is_package).rstrip(".")
            yield from ((alias.asname or alias.name, f"{base}.{alias.name}") for alias in node.names)


def _base(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    """What a `from` imports from: `jax`, `.helper`, or `.` for the submission's own folder."""
    if not node.level:
        return node.module or ""
    parts = name.split(".")[1:]
    package = parts if is_package else parts[:-1]
    up = node.level - 1
    inside = package[: len(package) - up] if up <= len(package) else ["", *package]
    return "." + ".".join([*inside, *([node.module] if node.module else [])])
