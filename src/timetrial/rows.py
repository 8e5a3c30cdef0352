"""How many rows a program passes through the loss, read from its jaxpr (rule 3).

`problem.loss` binds a marker, an identity on all its inputs. Because the inputs go through the marker, every
transformation of the loss transforms the marker with it: `vmap` and `scan` multiply its rows, `cond` takes the larger
branch, forward derivatives charge the rows again. A plain gradient costs its rows once; a Hessian-vector product costs
them twice, whichever way it is taken. A Python counter cannot see any of this.

In a compiled program a marker is a call of a function that returns its arguments and says the rows in its name, so that
the rows of a program that comes without Python can be read as well (`timetrial.isolation.inspection`).
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.interpreters import ad, batching, mlir
from jax.interpreters.partial_eval import dce_jaxpr

PyTree = Any


class RowsUnknownError(Exception):
    """The rows cannot be read from the program: the loss is inside a loop without a fixed number of turns."""


_LOOP = (
    "problem.loss is called inside a while loop, whose number of turns nobody knows beforehand; "
    "use lax.scan, or lax.fori_loop with fixed bounds"
)
UNKNOWN = -1
"""The rows of a marker on what is known to be such a loop."""

# What a marker stands on, and what it costs. The pass back through a loss belongs to the pass forward that it follows,
# so it is free; the derivative of a pass back is a pass of its own, once it is transposed.
_CHARGED = {"loss": 1, "tangent": 1, "cotangent": 0, "cotangent_tangent": 0, "second_cotangent": 1}
_TANGENT_OF = {
    "loss": "tangent",
    "tangent": "tangent",
    "cotangent": "cotangent_tangent",
    "cotangent_tangent": "cotangent_tangent",
    "second_cotangent": "cotangent_tangent",
}
_TRANSPOSE_OF = {
    "tangent": "cotangent",
    "cotangent": "tangent",
    "cotangent_tangent": "second_cotangent",
    "second_cotangent": "cotangent_tangent",
}

CALL_PREFIX = "timetrial_rows_"
"""Of the functions that markers become: the number of rows follows, and maybe an underscore and more."""

marker_p = core.Primitive("timetrial_rows")
marker_p.multiple_results = True


def mark(tree: PyTree, key: jax.Array, rows: int) -> PyTree:
    """`tree` itself, with a marker on it that says: `rows` rows go through the loss here."""
    leaves, structure = jax.tree.flatten(tree)
    seen = (*leaves, jax.random.key_data(key))  # a vmap over keys alone is a pass through the loss as well
    return structure.unflatten(marker_p.bind(*seen, rows=rows, outputs=len(leaves), kind="loss"))


def rows_in(jaxpr: core.Jaxpr) -> int:
    """The rows that one run of the program passes through the loss; raises `RowsUnknownError`.

    A pass whose result nobody uses is not run, and not counted.
    """
    live, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _rows_in(live)


def _rows_in(jaxpr: core.Jaxpr) -> int:
    return sum(_rows_of(equation) for equation in jaxpr.eqns)


def _rows_of(equation: core.JaxprEqn) -> int:
    if equation.primitive is marker_p:
        if equation.params["rows"] == UNKNOWN:
            raise RowsUnknownError(_LOOP)
        return equation.params["rows"] * _CHARGED[equation.params["kind"]]
    inner = [_rows_in(jaxpr) for jaxpr in _programs_in(equation.params)]
    if not any(inner):
        return 0
    name = equation.primitive.name
    if name == "scan":
        return sum(inner) * equation.params["length"]
    if name == "cond":
        return max(inner)
    if name == "while":
        raise RowsUnknownError(_LOOP)
    if name == "shard_map":
        return sum(inner) * equation.params["mesh"].size
    return sum(inner)


def _programs_in(params: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs among an equation's parameters: bodies of loops, branches, called functions."""
    found: list[core.Jaxpr] = []
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found


def _identity(*operands: Any, outputs: int, **_: Any) -> list[Any]:
    return list(operands[:outputs])


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, rows: int, outputs: int, kind: str) -> Any:
    out = marker_p.bind(*primals, rows=rows, outputs=outputs, kind=kind)
    moving = [i for i in range(outputs) if not isinstance(tangents[i], ad.Zero)]
    marked: list[Any] = []
    if moving:
        # The primals ride along, so that a vmap over any of them multiplies the tangent's rows too.
        operands = (*(tangents[i] for i in moving), *primals)
        marked = marker_p.bind(*operands, rows=rows, outputs=len(moving), kind=_TANGENT_OF[kind])
    out_tangents = list(tangents[:outputs])  # the zeros stay zeros
    for i, tangent in zip(moving, marked, strict=True):
        out_tangents[i] = tangent
    return out, out_tangents


def _transpose(cotangents: Sequence[Any], *operands: Any, rows: int, outputs: int, kind: str) -> list[Any]:
    if any(ad.is_undefined_primal(operand) for operand in operands[outputs:]):
        raise TypeError(
            "problem.loss cannot be transposed by itself; differentiate it with jax.grad, jax.vjp or jax.jvp"
        )
    result: list[Any] = [None] * len(operands)
    moving = [i for i in range(outputs) if not isinstance(cotangents[i], ad.Zero)]
    if moving:
        seen = (*(cotangents[i] for i in moving), *operands[outputs:])
        marked = marker_p.bind(*seen, rows=rows, outputs=len(moving), kind=_TRANSPOSE_OF[kind])
        for i, cotangent in zip(moving, marked, strict=True):
            result[i] = cotangent
    return result


def _batch(operands: Sequence[Any], axes: Sequence[Any], *, rows: int, outputs: int, kind: str) -> Any:
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    out = marker_p.bind(*operands, rows=rows * size, outputs=outputs, kind=kind)
    return out, list(axes[:outputs])


def _lower(ctx: mlir.LoweringRuleContext, *operands: Any, rows: int, outputs: int, kind: str) -> Sequence[Any]:
    if not _CHARGED[kind]:
        return operands[:outputs]
    types = [operand.type for operand in operands]
    module = ctx.module_context
    function = func.FuncOp(f"{CALL_PREFIX}{rows}", (types, types[:outputs]), ip=module.ip)
    function.attributes["sym_visibility"] = ir.StringAttr.get("private")
    module.symbol_table.insert(function)  # which makes the name its own
    block = function.add_entry_block()
    with ir.InsertionPoint(block):
        func.ReturnOp(list(block.arguments)[:outputs])
    return list(func.CallOp(function, list(operands)).results)


marker_p.def_impl(_identity)
marker_p.def_abstract_eval(_identity)
ad.primitive_jvps[marker_p] = _jvp
ad.primitive_transposes[marker_p] = _transpose
batching.primitive_batchers[marker_p] = _batch
mlir.register_lowering(marker_p, _lower)
