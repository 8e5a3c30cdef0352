"""Static rules on what the code names: what it imports, how it reaches around, what it sets."""

import ast
from collections.abc import Iterator

from timetrial.check.code import Finding, Module
from timetrial.check.libraries import (
    ALGOPERF,
    ATTRIBUTES,
    BEYOND,
    DUNDERS,
    ELSEWHERE,
    EVALUATES,
    MODULES,
    PACKAGES,
    SETTING,
    Refusal,
    is_hidden,
    refusal,
)
from timetrial.syntax import parse

_SELF = ("self", "cls")
_READERS = ("builtins.getattr", "builtins.hasattr")
_UNDERSCORED = frozenset(("_replace", "_asdict", "_fields", "_make"))
"""A named tuple's."""


def imports(module: Module, *, algoperf: bool) -> Iterator[Finding]:
    """Imports lead to the libraries that are allowed and to the submission's own files."""
    for node in module.nodes():
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for alias, dotted in zip(node.names, module.imported(node), strict=True):
            if alias.name == "*":
                yield Finding("fail", module.at(node), f"`{ast.unparse(node)}` hides what it imports", "import by name")
            elif refusal(dotted) is None and not _may_import(module, node, dotted, algoperf=algoperf):
                yield Finding("fail", module.at(node), f"{dotted} {ELSEWHERE.why}", ELSEWHERE.todo)


def _may_import(module: Module, node: ast.Import | ast.ImportFrom, dotted: str, *, algoperf: bool) -> bool:
    holder = dotted.rpartition(".")[0]
    top = dotted.partition(".")[0]
    if not top:
        return dotted in module.siblings or (isinstance(node, ast.ImportFrom) and holder in module.siblings)
    if algoperf and top in ALGOPERF:
        return True
    if dotted in MODULES or holder == "__future__":
        return True
    if any(part.startswith("_") for part in dotted.split(".")):
        return False
    return top in PACKAGES or (isinstance(node, ast.ImportFrom) and holder in MODULES)


def names(module: Module) -> Iterator[tuple[str, Finding]]:
    """What each name in the code leads to: (rule, finding), mostly of `reach`, `kernels` and `settings`."""
    problems = {node.arg for node in module.nodes() if isinstance(node, ast.arg) and _is_problem(node)}
    for node in module.nodes():
        for refused, shown in _refusals(module, node):
            yield refused.rule, Finding("fail", module.at(node), f"{shown} {refused.why}", refused.todo)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in problems:
            yield from _of_problem(module, node)


def _of_problem(module: Module, node: ast.Attribute) -> Iterator[tuple[str, Finding]]:
    if node.attr != "loss" and not node.attr.startswith("_"):  # private names are refused anyway
        shown = f"`{ast.unparse(node)}` {BEYOND.why}"
        yield BEYOND.rule, Finding("fail", module.at(node), shown, "of a problem, use `loss` alone")


def _refusals(module: Module, node: ast.AST) -> Iterator[tuple[Refusal, str]]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for dotted in module.imported(node):
            if (refused := refusal(dotted)) is not None:
                yield refused, dotted
    elif isinstance(node, (ast.Name, ast.Attribute)):
        yield from _refused_name(module, node)
    elif isinstance(node, ast.Call):
        yield from _refused_call(module, node)
    elif isinstance(node, ast.MatchClass):
        yield from ((BEYOND, name) for name in node.kwd_attrs if is_hidden(name))
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and is_hidden(node.name):
        yield BEYOND, node.name
    elif isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
        if _calls(node.annotation):
            yield EVALUATES, "an annotation in quotes that calls something"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "xla_" in node.value.lower():
        yield SETTING, repr(node.value[:40])


def _refused_name(module: Module, node: ast.Name | ast.Attribute) -> Iterator[tuple[Refusal, str]]:
    name = node.id if isinstance(node, ast.Name) else node.attr
    dotted = module.resolve(node)
    if dotted is not None and (refused := refusal(dotted)) is not None:
        parent = module.resolve(node.value) if isinstance(node, ast.Attribute) else None
        if parent is None or refusal(parent) is None:  # said once for jax.config.update
            yield refused, dotted.removeprefix("builtins.")
    elif isinstance(node, ast.Attribute) and name in ATTRIBUTES:
        yield ATTRIBUTES[name], f".{name}"
    elif is_hidden(name):
        yield BEYOND, name
    elif isinstance(node, ast.Attribute) and name.startswith("_") and name not in DUNDERS | _UNDERSCORED:
        own = isinstance(node.value, ast.Name) and node.value.id in _SELF
        if not own and not (dotted or "").startswith("."):
            yield BEYOND, f"the private name `{ast.unparse(node)}`"


def _refused_call(module: Module, node: ast.Call) -> Iterator[tuple[Refusal, str]]:
    called = module.resolve(node.func)
    if called in _READERS:
        name = node.args[1] if len(node.args) > 1 else None
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            yield Refusal("reach", "reads an attribute whose name is computed", "write `x.name`"), "getattr"
        elif isinstance(node.args[0], ast.expr):
            attribute = ast.Attribute(value=node.args[0], attr=name.value, ctx=ast.Load())
            yield from _refused_name(module, attribute)
    if any(keyword.arg == "compiler_options" for keyword in node.keywords):
        yield SETTING, "compiler_options"


def values(module: Module) -> Iterator[Finding]:
    """Modules, and the functions that read and write attributes by name, are used on the spot and not handed around."""
    used = {id(node.value) for node in module.nodes() if isinstance(node, ast.Attribute)}
    for node in module.nodes():
        if isinstance(node, ast.Call):
            used.add(id(node.func))
            if module.resolve(node.func) in _READERS and node.args:
                used.add(id(node.args[0]))
    for node in module.nodes():
        if not isinstance(node, (ast.Name, ast.Attribute)) or id(node) in used:
            continue
        dotted = module.resolve(node)
        if dotted in MODULES or dotted in PACKAGES or dotted in module.siblings:
            todo = f"write `{ast.unparse(node)}.name` where it is used"
            yield Finding("fail", module.at(node), f"hands the module {dotted} around", todo)
        elif dotted in ("builtins.getattr", "builtins.setattr", "builtins.delattr"):
            name = dotted.removeprefix("builtins.")
            yield Finding("fail", module.at(node), f"hands {name} around", "write `x.name`")


def patching(module: Module) -> Iterator[Finding]:
    """Attributes are set on `self` alone, and items of what is imported are not set at all."""
    todo = "build a new value instead: state._replace(…), dataclasses.replace(…), a function of your own"
    for node in module.nodes():
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if not (isinstance(node.value, ast.Name) and node.value.id in _SELF):
                yield Finding("fail", module.at(node), f"sets `{ast.unparse(node)}`", todo)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            if (dotted := module.resolve(node.value)) is not None and not dotted.startswith("builtins."):
                yield Finding("fail", module.at(node), f"sets an item of {dotted}, which is imported", todo)
        elif isinstance(node, ast.Call) and module.resolve(node.func) in ("builtins.setattr", "builtins.delattr"):
            yield Finding("fail", module.at(node), f"calls `{ast.unparse(node)[:60]}`", todo)


def _calls(annotation: ast.expr) -> bool:
    """Whether text inside an annotation would call something, if anybody evaluated it."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                inside = parse(node.value, mode="eval")
            except (SyntaxError, ValueError):
                continue  # nobody could evaluate it
            except (RecursionError, MemoryError):
                return True  # too deep to look at, not to evaluate
            if any(isinstance(part, ast.Call) for part in ast.walk(inside)):
                return True
    return False


def _is_problem(argument: ast.arg) -> bool:
    """Whether a parameter is a `Problem`, by its name or its annotation."""
    annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
    return argument.arg == "problem" or annotation.strip("'\"").rpartition(".")[2] == "Problem"
