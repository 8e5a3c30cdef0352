"""A search space, read from the text of a submission: nothing of it is run."""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from timetrial.errors import UserError
from timetrial.loading import ALGOPERF_SEARCH_SPACE, Source
from timetrial.tuning import Choice, Integers, LogUniform, SearchSpace, Uniform, check_search_space

_DISTRIBUTIONS: Mapping[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (Uniform, LogUniform, Integers, Choice)
}


def search_space(source: Source) -> SearchSpace | None:
    """The search space that a submission declares; None where only running its code could tell."""
    try:
        if source.api == "algoperf":
            from timetrial.algoperf.search_space import read_search_space

            return {} if source.self_tuning else read_search_space(source.folder / ALGOPERF_SEARCH_SPACE)
        assigned = [value for value in map(_assigned, source.parse().body) if value is not None]
        return check_search_space(_value(assigned[0])) if len(assigned) == 1 else None
    except (UserError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _assigned(node: ast.stmt) -> ast.expr | None:
    """What a statement at the top level assigns to SEARCH_SPACE."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    named = any(isinstance(target, ast.Name) and target.id == "SEARCH_SPACE" for target in targets)
    return node.value if named and isinstance(node, (ast.Assign, ast.AnnAssign)) else None


def _value(node: ast.expr) -> Any:
    """The value of an expression of literals and distributions; ValueError for any other."""
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        if len(keys) < len(node.keys):
            raise ValueError("unpacking")
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name not in _DISTRIBUTIONS or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(name)
        given = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        return _DISTRIBUTIONS[name](*map(_value, node.args), **given)
    return ast.literal_eval(node)
