"""Static rules on literals: no weights hidden in the code, and one search space for all workloads."""

import ast
import re
from collections.abc import Iterator

from timetrial.check.code import Finding, Module, words

NUMBERS = 256
"""The most numbers that one literal may hold."""
CHARACTERS = 2_000
"""The most characters of one string."""
ALL_NUMBERS, ALL_CHARACTERS = 2_000, 20_000
"""The most that all files may hold together."""
_DIGITS = 40
_ENCODED = re.compile(r"[A-Za-z0-9+/=_\-]{200,}")
_COLLECTIONS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Call)
_DISTRIBUTIONS = frozenset(
    f"{module}.{name}"
    for module in ("timetrial", "timetrial.tuning")
    for name in ("Uniform", "LogUniform", "Integers", "Choice")
)
_SPACE = "SEARCH_SPACE"
_MUTATING = words("update pop popitem clear setdefault append extend insert remove")


def weights(modules: dict[str, Module]) -> Iterator[Finding]:
    """Literals that are large enough to hold what was learnt elsewhere."""
    todo = "compute it from `key` and the shapes; what was trained on a workload may not be brought along"
    numbers = characters = 0
    for module in modules.values():
        for node, count in _large_collections(module.tree):
            yield Finding("fail", module.at(node), f"a literal of {count:,} numbers, more than {NUMBERS}", todo)
        usable = {id(node) for node in module.strings()}
        for node in module.nodes():
            if not isinstance(node, ast.Constant):
                continue
            value = node.value
            if isinstance(value, (str, bytes)):
                text = value if isinstance(value, str) else value.decode("latin-1")
                used = isinstance(value, bytes) or id(node) in usable
                characters += len(text) if used else 0
                if used and len(text) > CHARACTERS:
                    yield Finding("fail", module.at(node), f"a string of {len(text):,} characters", todo)
                elif _ENCODED.search(text):
                    yield Finding("fail", module.at(node), "a string that looks like encoded data", todo)
            elif isinstance(value, (int, float, complex)) and not isinstance(value, bool):
                numbers += 1
                if isinstance(value, int) and abs(value) >= 10**_DIGITS:
                    yield Finding("fail", module.at(node), f"a number of more than {_DIGITS} digits", todo)
    for found, most, what in ((numbers, ALL_NUMBERS, "numbers"), (characters, ALL_CHARACTERS, "characters in strings")):
        if found > most:
            first = next(iter(modules.values())).where
            yield Finding("fail", first, f"{found:,} {what} in all files together, more than {most:,}", todo)


def _large_collections(node: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    """The outermost collections, and calls, whose own elements hold too many numbers."""
    for child in ast.iter_child_nodes(node):
        count = _numbers_in(child) if isinstance(child, _COLLECTIONS) else 0
        if count > NUMBERS:
            yield child, count
        else:
            yield from _large_collections(child)


def _numbers_in(node: ast.AST) -> int:
    return sum(
        isinstance(part, ast.Constant) and isinstance(part.value, (int, float, complex)) for part in ast.walk(node)
    )


def search_space(module: Module) -> Iterator[Finding]:
    """`SEARCH_SPACE` is one literal at the top of a file, which nothing changes: the same for all workloads."""
    literal = f"write {_SPACE} = {{…}} or [{{…}}] once, at the top level, of numbers and timetrial's distributions"
    top = {id(node) for node in module.tree.body}
    plain: set[int] = set()
    assignments = 0
    for node in module.nodes():
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if not any(isinstance(target, ast.Name) and target.id == _SPACE for target in targets):
                continue
            assignments += 1
            if id(node) not in top:
                yield Finding("fail", module.at(node), f"{_SPACE} is assigned inside a block", literal)
            elif node.value is not None and (part := _not_literal(module, node.value)) is not None:
                yield Finding("fail", module.at(part), f"{_SPACE} depends on `{ast.unparse(part)[:60]}`", literal)
            plain.update(map(id, targets))
        elif id(node) not in plain and _binds_space(module, node):
            yield Finding("fail", module.at(node), f"{_SPACE} is no plain assignment", literal)
        elif _changes_space(node):
            yield Finding("fail", module.at(node), f"{_SPACE} is changed after it was written", literal)
    if assignments > 1:
        yield Finding("fail", module.where, f"{_SPACE} is assigned {assignments} times", literal)


def _not_literal(module: Module, node: ast.expr) -> ast.expr | None:
    """The first part of an expression that is neither a literal nor one of timetrial's distributions of literals."""
    children: list[ast.expr]
    if isinstance(node, ast.Constant):
        return None
    if isinstance(node, ast.Dict) and None not in node.keys:
        children = [part for part in (*node.keys, *node.values) if part is not None]
    elif isinstance(node, (ast.List, ast.Tuple)):
        children = node.elts
    elif isinstance(node, ast.UnaryOp):
        children = [node.operand]
    elif isinstance(node, ast.BinOp):
        children = [node.left, node.right]
    elif isinstance(node, ast.Call) and module.resolve(node.func) in _DISTRIBUTIONS:
        children = [*node.args, *(keyword.value for keyword in node.keywords)]
    else:
        return node
    return next((part for child in children if (part := _not_literal(module, child)) is not None), None)


def _binds_space(module: Module, node: ast.AST) -> bool:
    """Whether a node gives the space's name to something; that of another of the submission's files may be imported."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        bound = zip(node.names, module.imported(node), strict=True)
        return any(
            (alias.asname or alias.name) == _SPACE and not (dotted.startswith(".") and alias.name == _SPACE)
            for alias, dotted in bound
        )
    if isinstance(node, ast.Name):
        return node.id == _SPACE and isinstance(node.ctx, ast.Store)
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.MatchAs, ast.MatchStar)):
        return node.name == _SPACE
    return isinstance(node, ast.MatchMapping) and node.rest == _SPACE


def _changes_space(node: ast.AST) -> bool:
    """Whether a node assigns to the space's items, deletes or augments it, or calls a method that changes it."""
    if isinstance(node, ast.AugAssign):
        node = node.target
        return isinstance(node, ast.Name) and node.id == _SPACE
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        node = node.value
        return isinstance(node, ast.Name) and node.id == _SPACE
    if isinstance(node, ast.Name):
        return node.id == _SPACE and isinstance(node.ctx, ast.Del)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATING:
        return isinstance(node.func.value, ast.Name) and node.func.value.id == _SPACE
    return isinstance(node, ast.Global) and _SPACE in node.names
