"""What a program that came from a sandbox does, read from the program itself: nothing that its maker says is believed.

The text of a program is StableHLO (openxla.org/stablehlo/spec).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.interpreters import mlir

from timetrial.problem import ContractError
from timetrial.rows import CALL_PREFIX

_DIALECTS = {"builtin", "func", "stablehlo", "chlo", "sdy"}
_FORBIDDEN = {"stablehlo.infeed", "stablehlo.outfeed", "stablehlo.send", "stablehlo.recv", "func.constant"}
_LIBRARIES = ("lapack_", "cusolver_", "cusparse_", "hipsolver_")
_CUSTOM_CALLS = {
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "ApproxTopK",
    "stablehlo.dynamic_top_k",
    "mhlo.topk",
    "mhlo.erf",
    "cu_threefry2x32_ffi",
    "hip_threefry2x32_ffi",
    "cu_lu_pivots_to_permutation",
    "hip_lu_pivots_to_permutation",
}
"""Calls out of a program into what jax itself brings: algebra, random bits, sharding; no callbacks, no kernels."""


@dataclass(frozen=True)
class Inspected:
    """What was read from one program."""

    constant_bytes: int
    """Of all arrays that are written out in it; one number repeated takes the bytes of one."""
    rows: int | None
    """That one run passes through `problem.loss`; None where the program loops nobody knows how often."""


def inspect(text: str) -> Inspected:
    """Reads a StableHLO module; raises `ContractError` for what a program may not do, or where it is none."""
    context = mlir.make_ir_context()
    with context:
        try:
            module = ir.Module.parse(text)
        except ir.MLIRError as error:
            raise ContractError(f"what was handed over is not a program: {str(error).splitlines()[0]}") from None
        constants = 0
        for operation in _all(module.operation):
            if operation.name.partition(".")[0] not in _DIALECTS or operation.name in _FORBIDDEN:
                raise ContractError(f"the program contains the operation {operation.name}, which is not allowed")
            if operation.name == "stablehlo.custom_call":
                _check_custom_call(ir.StringAttr(operation.attributes["call_target_name"]).value)
            if operation.name.endswith(".constant"):  # chlo and sdy have constants of their own, which compile as well
                constants += _bytes(operation)
        functions = {ir.StringAttr(f.attributes["sym_name"]).value: f for f in _functions(module)}
        if "main" not in functions:
            raise ContractError("what was handed over is not a program: it has no function main")
        try:
            rows = _rows(functions["main"], functions, {})
        except _UnknownTurns:
            rows = None
        return Inspected(constants, rows)


class _UnknownTurns(Exception):
    """A loop around `problem.loss` whose number of turns is not fixed."""


def _check_custom_call(target: str) -> None:
    if target not in _CUSTOM_CALLS and not target.startswith(_LIBRARIES):
        raise ContractError(
            f"the program calls {target!r}, which is not among what jax brings for all: "
            "no callbacks, no custom kernels, no debug prints"
        )


def _functions(module: Any) -> Iterator[Any]:
    for operation in module.body.operations:
        if isinstance(operation, func.FuncOp):
            yield operation.operation


def _all(operation: Any) -> Iterator[Any]:
    """The operation and all inside it. A list of its own, since programs nest deeper than Python recurses."""
    waiting = [operation]
    while waiting:
        current = waiting.pop()
        yield current
        for region in current.regions:
            for block in region.blocks:
                waiting += [inner.operation for inner in block.operations]


def _bytes(constant: Any) -> int:
    """Bytes of a constant as it is written out."""
    shaped = ir.ShapedType(constant.results[0].type)
    width = _bits(shaped.element_type)
    try:
        splat = bool(constant.attributes["value"].is_splat)
    except (TypeError, AttributeError):  # Python's view of MLIR lacks complex numbers
        splat = False
    count = 1 if splat else math.prod(shaped.get_dim_size(axis) for axis in range(shaped.rank))
    return -(-width * count // 8)


def _bits(element: Any) -> int:
    if isinstance(element, ir.ComplexType):
        return 2 * _bits(element.element_type)
    return int(element.width)


# Rows. The same rules as on jaxprs (`timetrial.rows`): loops multiply, branches cost the dearest.


def _rows(function: Any, functions: dict[str, Any], known: dict[str, int | None]) -> int:
    return sum(_rows_in_block(block, functions, known) for block in function.regions[0].blocks)


def _rows_in_block(block: Any, functions: dict[str, Any], known: dict[str, int | None]) -> int:
    return sum(_rows_of(operation.operation, functions, known) for operation in block.operations)


def _rows_of(operation: Any, functions: dict[str, Any], known: dict[str, int | None]) -> int:
    if operation.name == "func.call":
        name = ir.FlatSymbolRefAttr(operation.attributes["callee"]).value
        if name.startswith(CALL_PREFIX):
            said = name.removeprefix(CALL_PREFIX).partition("_")[0]
            if not (said.isascii() and said.isdecimal()):
                raise ContractError(f"the program's marker {name!r} says no number of rows")
            return int(said)
        if name not in known:
            known[name] = None
            known[name] = _rows(functions[name], functions, known)
        rows = known[name]
        if rows is None:
            raise ContractError(f"the program's function {name!r} calls itself")
        return rows
    inner = [sum(_rows_in_block(block, functions, known) for block in region.blocks) for region in operation.regions]
    if not any(inner):
        return 0
    if operation.name in ("stablehlo.case", "stablehlo.if"):
        return max(inner)
    if operation.name == "stablehlo.while":
        return inner[0] * (_turns(operation) + 1) + inner[1] * _turns(operation)
    return sum(inner)


def _turns(loop: Any) -> int:
    """How often a loop turns: from a counter that starts at a constant, grows by one, and ends at a constant."""
    condition, body = (region.blocks[0] for region in loop.regions)
    test = condition.operations[len(condition.operations) - 1].operation.operands[0].owner
    if not _is(test, "stablehlo.compare") or "LT" not in str(test.attributes["comparison_direction"]):
        raise _UnknownTurns
    counter, end = test.operands
    if not isinstance(counter, ir.BlockArgument):
        raise _UnknownTurns
    position = counter.arg_number
    grown = body.operations[len(body.operations) - 1].operation.operands[position].owner
    if not _is(grown, "stablehlo.add"):
        raise _UnknownTurns
    start, step = _integer(loop.operands[position]), _integer(grown.operands[1])
    before = grown.operands[0]
    last = _integer(end)
    if start is None or last is None or step != 1 or not isinstance(before, ir.BlockArgument):
        raise _UnknownTurns
    if before.owner != body or before.arg_number != position:
        raise _UnknownTurns
    return max(0, last - start)


def _is(owner: Any, name: str) -> bool:
    return isinstance(owner, (ir.OpView, ir.Operation)) and owner.operation.name == name


def _integer(value: Any) -> int | None:
    """The integer that a value is, where it is a constant."""
    if not _is(value.owner, "stablehlo.constant"):
        return None
    constant = value.owner.operation.attributes["value"]
    return int(constant[0]) if isinstance(constant, ir.DenseIntElementsAttr) else None
