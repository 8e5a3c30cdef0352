"""Programs that a tracing process may hand over instead of a submission's: inspection refuses each, and nothing else.

They are made here as whoever holds that process could make them: with jax's own safety checks off.
"""

import dataclasses
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.extend.mlir import ir
from jax.interpreters import mlir
from toys import CLASSES, FEATURES, toy_workload

from timetrial.isolation import exported
from timetrial.isolation.exported import ExportedEntry, Handed
from timetrial.problem import ContractError, WorkloadProblem, make_task
from timetrial.rows import mark
from timetrial.submission import Batch, TrainState

TOY = toy_workload()
ROWS = TOY.default_batch_size
PARAMS = [jax.ShapeDtypeStruct((CLASSES,), jnp.float32), jax.ShapeDtypeStruct((FEATURES, CLASSES), jnp.float32)]
BATCH = [jax.ShapeDtypeStruct((ROWS,), jnp.int32), jax.ShapeDtypeStruct((ROWS, FEATURES), jnp.float32)]
KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)
STEP = jax.ShapeDtypeStruct((), jnp.int32)
ARGUMENTS = (PARAMS, [], [], STEP, BATCH, [], KEY, [])
"""Of `step`: parameters, model state, optimizer state, step, rows, weights, key, hyperparameters."""
ONLY = [export.DisabledSafetyCheck.custom_call(name) for name in ("evil", "xla_ffi_python_cpu_callback")]


def program(function: Callable[..., Any], arguments: tuple[Any, ...] = ARGUMENTS, platform: str = "cpu") -> bytes:
    made = export.export(jax.jit(function), platforms=[platform], disabled_checks=ONLY)(*arguments)
    return bytes(made.serialize())


def step_with(change: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A step that changes the parameters so, from the rows of its batch."""

    def step(params: Any, model_state: Any, opt_state: Any, step: Any, rows: Any, weights: Any, key: Any, named: Any):
        return change(list(params), rows), model_state, opt_state, jnp.float32(0)

    return step


def begin(params: Any, model_state: Any, key: Any, named: Any) -> list[Any]:
    return []


def sent(params: list[Any], rows: Any) -> list[Any]:
    jax.ffi.ffi_call("evil", (), has_side_effect=True)(rows[1])
    return params


def fetched(params: list[Any], rows: Any) -> list[Any]:
    call = jax.ffi.ffi_call("xla_ffi_python_cpu_callback", PARAMS[1])
    return [params[0], call(params[1], index=np.uint64(0))]


def kernel(params: list[Any], rows: Any) -> list[Any]:
    return [params[0], jax.ffi.ffi_call("evil", PARAMS[1])(params[1])]


def learnt(params: list[Any], rows: Any) -> list[Any]:
    weights = np.random.RandomState(0).standard_normal((64, 512)).astype(np.float32)
    return [params[0], params[1] + jnp.sum(jnp.asarray(weights) * params[1][0, 0])]


def learnt_in_pieces(params: list[Any], rows: Any) -> list[Any]:
    pieces = np.random.RandomState(0).standard_normal((24, 1024)).astype(np.float32)
    return [params[0], params[1] + sum(jnp.sum(jnp.asarray(piece) * params[1][0, 0]) for piece in pieces)]


def disguised(step: bytes, dialect: str) -> bytes:
    """The program with its largest constants made by an operation of another dialect."""
    made = export.deserialize(bytearray(step))
    with mlir.make_ir_context(), ir.Location.unknown():
        module = ir.Module.parse(made.mlir_module())
        for function in module.body.operations:
            for found in list(function.operation.regions[0].blocks[0].operations):
                constant = found.operation
                if constant.name == "stablehlo.constant" and len(str(constant)) > 10_000:
                    other = ir.Operation.create(
                        f"{dialect}.constant",
                        results=[constant.results[0].type],
                        attributes={"value": constant.attributes["value"]},
                        ip=ir.InsertionPoint(found),
                    )
                    constant.results[0].replace_all_uses_with(other.results[0])
                    constant.erase()
        assert f"{dialect}.constant" in str(module)
        written = io.BytesIO()
        module.operation.write_bytecode(written)
    return bytes(dataclasses.replace(made, mlir_module_serialized=written.getvalue()).serialize())


def marked_down(params: list[Any], rows: Any) -> list[Any]:
    return mark(params, jax.random.key(0), -ROWS)


@dataclass(frozen=True)
class Hostile:
    """Programs in place of an honest step, and what is found in them."""

    name: str
    finds: str
    step: Callable[[], bytes]
    others: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)


HONEST = step_with(lambda params, rows: [params[0], params[1] + jnp.sum(rows[1])])
PROGRAMS = [
    Hostile("sends the rows to a kernel of its own", "effects", lambda: program(step_with(sent))),
    Hostile("asks Python for its parameters", "callback", lambda: program(step_with(fetched))),
    Hostile("calls a kernel of its own", "'evil'", lambda: program(step_with(kernel))),
    Hostile("carries trained weights", "written-out numbers", lambda: program(step_with(learnt))),
    Hostile("carries trained weights in pieces", "written-out numbers", lambda: program(step_with(learnt_in_pieces))),
    *(
        Hostile(
            f"carries trained weights as constants of {dialect}",
            "written-out numbers",
            lambda dialect=dialect: disguised(program(step_with(learnt)), dialect),
        )
        for dialect in ("chlo", "sdy")
    ),
    Hostile(
        "returns parameters of another shape",
        "returns arrays of other shapes",
        lambda: program(step_with(lambda params, rows: [params[0], params[1].T])),
    ),
    Hostile(
        "returns parameters of another type",
        "returns arrays of other shapes",
        lambda: program(step_with(lambda params, rows: [x.astype(jnp.bfloat16) for x in params])),
    ),
    Hostile(
        "takes fewer rows than a batch has",
        "takes arrays of other shapes",
        lambda: program(HONEST, (*ARGUMENTS[:4], [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in BATCH],
                                 *ARGUMENTS[5:])),
    ),
    Hostile("is for another device", "devices of tpu", lambda: program(HONEST, platform="tpu")),
]  # fmt: skip
NONSENSE = [
    Hostile("counts rows below nothing", "says no number of rows", lambda: program(step_with(marked_down))),
    Hostile(
        "is one program too many",
        "there are programs",
        lambda: program(HONEST),
        {"on_eval": lambda: program(HONEST)},
    ),
]
"""Refused as well, without the proof that something else would not stop them: the trusting reader below counts no rows,
and calls no other program."""


def run(programs: Mapping[str, bytes]) -> Any:
    """All that the harness does with programs but to compile them; returns shapes of the state after a step."""
    entry = ExportedEntry(lambda: Handed(programs, None, ()), TOY, {}, platform="cpu")
    task = make_task(TOY, horizon_examples=3200, device_count=1, device_memory_bytes=1 << 30)
    functions = entry.prepare(WorkloadProblem(TOY), task).functions

    def train(params: Any, batch: Any, words: Any) -> Any:
        key = jax.random.wrap_key_data(words)
        state = functions.begin(params, [], key, {})
        assert isinstance(state, TrainState)
        return functions.step(state, Batch(tuple(batch), None), key, {})

    return jax.eval_shape(train, PARAMS, BATCH, KEY)


@pytest.fixture(scope="module")
def honest_begin() -> bytes:
    return program(begin, (PARAMS, [], KEY, []))


def handed(hostile: Hostile, honest_begin: bytes) -> dict[str, bytes]:
    others = {name: make() for name, make in hostile.others.items()}
    return {"begin": honest_begin, "step": hostile.step(), **others}


@pytest.mark.parametrize("hostile", [*PROGRAMS, *NONSENSE], ids=lambda hostile: hostile.name)
def test_inspection_refuses_a_program_that(hostile: Hostile, honest_begin: bytes):
    with pytest.raises(ContractError, match=hostile.finds):
        run(handed(hostile, honest_begin))


@pytest.mark.parametrize("hostile", PROGRAMS, ids=lambda hostile: hostile.name)
def test_nothing_but_inspection_refuses_a_program_that(
    hostile: Hostile, honest_begin: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exported, "_Program", Uninspected)
    assert jax.tree.leaves(run(handed(hostile, honest_begin)))


class Uninspected:
    """A program that is taken for what it says it is."""

    def __init__(self, name: str, serialized: bytes, platform: str, constant_bytes: int) -> None:
        self._program = export.deserialize(bytearray(serialized))
        self.rows = ROWS
        self.results = self._program.out_avals

    def check(self, name: str, arguments: Any, results: Any) -> None: ...

    def __call__(self, *arguments: Any) -> Any:
        taken = [jnp.zeros(x.shape, x.dtype) for x in self._program.in_avals]
        returned = jax.tree.unflatten(self._program.in_tree, taken)[0]
        return self._program.call(*returned)


def test_an_honest_program_passes(honest_begin: bytes):
    (state, loss) = run({"begin": honest_begin, "step": program(HONEST)})
    assert [x.shape for x in state.params] == [x.shape for x in PARAMS]
    assert loss.shape == ()


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_bytes_that_are_no_program_are_refused(cut: int, honest_begin: bytes):
    with pytest.raises(ContractError, match="cannot be read"):
        run({"begin": honest_begin, "step": honest_begin[:cut]})
