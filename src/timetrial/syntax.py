"""Python source as a syntax tree. Standard library only."""

import ast
import gc
from pathlib import Path
from typing import Literal, overload


@overload
def parse(source: str | bytes, where: str | Path = ...) -> ast.Module: ...
@overload
def parse(source: str | bytes, where: str | Path = ..., *, mode: Literal["eval"]) -> ast.Expression: ...
def parse(
    source: str | bytes, where: str | Path = "<unknown>", *, mode: Literal["exec", "eval"] = "exec"
) -> ast.Module | ast.Expression:
    """`ast.parse` with the garbage collector at rest; raises what it raises.

    Python 3.11 keeps one count of the depth of all trees that it builds: what a collection runs meanwhile, and what
    that parses (a traceback's text, for one), fails the outer tree with a SystemError (github.com/python/cpython,
    issue 106905).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        tree = ast.parse(source, str(where), mode)
    finally:
        if collects:
            gc.enable()
    assert isinstance(tree, ast.Module | ast.Expression)
    return tree
