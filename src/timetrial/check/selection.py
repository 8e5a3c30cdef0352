"""Static rules against knowing the workloads: their names, and numbers that tell one from another.

A number that a workload has (a shape, a count of arrays, the horizon, the batch size) may be computed with. To compare
it for equality with a large literal, or to look something up by it, is to recognise a workload. To ask whether it is
larger is a threshold, which a method may have, and which is warned of.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from timetrial.check.code import Finding, Module, words

LARGEST_ORDINARY = 16
"""Literals up to this one are numbers of axes, of devices and the like, and tell no workload from another."""
_QUANTITIES = words("""
    shape size nbytes horizon_examples horizon_steps default_batch_size max_batch_size device_memory_bytes shape_tuple
    step_hint
""")
_KEEPING = words("""
    len int float abs min max sum round tuple list sorted set frozenset dict hash str repr divmod pow range enumerate
    zip map reversed format bin hex next iter any all
""")
_REDUCING = words("prod sum max min size shape ndim array asarray cumsum cumprod dot mean")
"""Functions that make of such a number another such number: Python's, and numpy's and jax.numpy's."""
_GROWING = (ast.Pow, ast.LShift, ast.Mult)
_LOOKUPS = frozenset(("get", "pop", "setdefault", "index", "count"))


def workload_names(module: Module, names: Iterable[str]) -> Iterator[Finding]:
    """Strings in the code that name a workload or a variant of one; within a longer string, a warning."""
    known = "|".join(map(re.escape, sorted(names)))
    if not known:
        return
    whole, inside = re.compile(rf"({known})([_+].*)?", re.IGNORECASE), re.compile(rf"\b({known})\b", re.IGNORECASE)
    todo = "choose by what `task` says (kinds of parameters, shapes, loss type), never by which workload it is"
    for node in module.strings():
        text = str(node.value)
        if whole.fullmatch(text.strip()):
            yield Finding("fail", module.at(node), f"names the workload {text.strip()!r}", todo)
        elif found := inside.search(text):
            yield Finding("warn", module.at(node), f"a string holds the name of a workload, {found[0]!r}", todo)


def shapes(module: Module) -> Iterator[Finding]:
    """Comparisons and lookups by which a workload could be recognised."""
    reader = _Reader(module)
    todo = "let the method depend on shapes by a formula, not on particular ones"
    for node in module.nodes():
        if (by := reader.recognises(node)) is None:
            continue
        status, how = by
        if status == "fail":
            yield Finding("fail", module.at(node), f"{how}: `{_short(node)}`", todo)
        else:
            todo_warn = "say in the README what the threshold is for, or compute it"
            yield Finding("warn", module.at(node), f"{how}: `{_short(node)}`", todo_warn)


class _Reader:
    """Which expressions of a file are numbers of the workload, and which are large literals; by name, not by scope."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._quantities: set[str] = set()
        self._literals: dict[str, ast.expr] = {}
        assigned = list(_assignments(module))
        for target, value in assigned:
            for name in _names_in(target):
                if name not in module.bindings and _is_literal(value):
                    self._literals[name] = value
        before = -1
        while len(self._quantities) > before:  # until nothing is new
            before = len(self._quantities)
            for target, value in assigned:
                if self.is_quantity(value):
                    self._quantities.update(_names_in(target))

    def is_quantity(self, node: ast.AST) -> bool:
        """Whether an expression is computed from the workload's numbers by arithmetic and collecting alone."""
        if isinstance(node, ast.Attribute):
            return node.attr in _QUANTITIES or (node.attr == "params" and _is_task(node.value))
        if isinstance(node, ast.Name):
            return node.id in self._quantities
        if isinstance(node, ast.Call):
            if self._module.resolve(node.func) == "builtins.len":
                return True
            return self._keeps(node.func) and any(map(self.is_quantity, [*node.args, node.func]))
        if isinstance(node, ast.Lambda):
            return self.is_quantity(node.body)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            return self.is_quantity(node.elt) or any(self.is_quantity(part.iter) for part in node.generators)
        if isinstance(node, ast.BinOp):  # the mean of a gradient is none, though it is divided by a size
            sides = (node.left, node.right)
            number = [self.is_quantity(side) for side in sides]
            return any(number) and all(
                known or self._is_number(side) for known, side in zip(number, sides, strict=True)
            )
        if isinstance(node, (ast.UnaryOp, ast.Subscript, ast.Starred, ast.Tuple, ast.List, ast.Set, ast.IfExp,
                             ast.NamedExpr, ast.JoinedStr, ast.FormattedValue)):  # fmt: skip
            children = [node.value] if isinstance(node, ast.Subscript) else list(ast.iter_child_nodes(node))
            return any(map(self.is_quantity, children))
        return False

    def _keeps(self, function: ast.expr) -> bool:
        if self.is_quantity(function):  # task.horizon_steps(), a function of the file's own that returns such a number
            return True
        dotted = self._module.resolve(function) or ""
        module, _, name = dotted.rpartition(".")
        if module in ("math", "operator", "itertools") or dotted == "functools.reduce":
            return True
        return name in {"builtins": _KEEPING, "numpy": _REDUCING, "jax.numpy": _REDUCING}.get(module, ())

    def recognises(self, node: ast.AST) -> tuple[str, str] | None:
        """(status, what is wrong) of a comparison or a lookup; None where nothing is."""
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Match) and self.is_quantity(node.subject):
            literals = [part for case in node.cases for part in ast.walk(case.pattern) if isinstance(part, ast.expr)]
            return ("fail", "matches a number of the workload") if any(map(self._large, literals)) else None
        if isinstance(node, ast.Subscript) and self.is_quantity(node.slice):
            return self._lookup(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOOKUPS:
            return self._lookup(node.func.value) if any(map(self.is_quantity, node.args)) else None
        return None

    def _comparison(self, node: ast.Compare) -> tuple[str, str] | None:
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            for quantity, literal in ((left, right), (right, left)):
                if not self.is_quantity(quantity) or self.is_quantity(literal) or not self._large(literal):
                    continue
                if isinstance(operator, (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)):
                    return "fail", "compares a number of the workload with a literal"
                return "warn", "a threshold on a number of the workload"
        return None

    def _lookup(self, table: ast.expr) -> tuple[str, str] | None:
        table = self._literal(table)
        keys: list[ast.expr] = []
        if isinstance(table, ast.Dict):
            keys = [key for key in table.keys if key is not None]
        elif isinstance(table, (ast.List, ast.Tuple, ast.Set)) and len(table.elts) > LARGEST_ORDINARY:
            return "fail", "looks up a number of the workload in a long table"
        return ("fail", "looks up a number of the workload in a table") if any(map(self._large, keys)) else None

    def _literal(self, node: ast.expr) -> ast.expr:
        return self._literals.get(node.id, node) if isinstance(node, ast.Name) else node

    def _is_number(self, node: ast.expr) -> bool:
        return _is_literal(self._literal(node))

    def _large(self, node: ast.expr) -> bool:
        """Whether an expression is, or holds, a literal number above the ordinary, or text with such a number in it."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                if part.id in self._literals and self._large(self._literals[part.id]):  # those hold no names
                    return True
            elif isinstance(part, ast.Constant):
                value = part.value
                if isinstance(value, str) and any(int(n[:9]) > LARGEST_ORDINARY for n in re.findall(r"\d+", value)):
                    return True
                if isinstance(value, (int, float)) and value > LARGEST_ORDINARY:
                    return True
            elif isinstance(part, ast.BinOp) and isinstance(part.op, _GROWING) and _is_literal(part):
                return True  # 2**20
        return False


def _assignments(module: Module) -> Iterator[tuple[ast.AST, ast.expr]]:
    """(what is bound, what is bound to it) wherever a file binds names: also those of functions to what they return."""
    for node in module.nodes():
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield node.target, node.iter
        elif isinstance(node, ast.FunctionDef):
            returned = (part.value for part in ast.walk(node) if isinstance(part, ast.Return))
            yield from ((ast.Name(node.name), value) for value in returned if value is not None)


def _names_in(target: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]


def _is_task(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "task"


def _is_literal(node: ast.expr) -> bool:
    return all(isinstance(part, (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.unaryop,
                                 ast.BinOp, ast.operator, ast.expr_context)) for part in ast.walk(node))  # fmt: skip


def _short(node: ast.AST) -> str:
    text = ast.unparse(node).splitlines()[0]
    return text if len(text) <= 80 else text[:77] + "..."
