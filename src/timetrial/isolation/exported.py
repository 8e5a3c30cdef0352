"""A submission that came as programs: inspected, then run by the harness like any other, with none of its Python."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from timetrial.isolation.inspection import inspect
from timetrial.problem import ContractError, WorkloadProblem
from timetrial.programs import Functions, Prepared, Scalars
from timetrial.rows import UNKNOWN, mark
from timetrial.submission import Batch, Leaves, Task, TrainState
from timetrial.workload import Array, Workload

CONSTANT_BYTES = 64 << 10
"""What a program may hold in written-out numbers, beyond what the workload's own loss holds."""


class Handed(NamedTuple):
    """What the other process handed over."""

    programs: Mapping[str, bytes]
    batch_size: int | None
    ignored: tuple[str, ...]
    """Settings that the submission asked for and the workload lacks."""


class ExportedEntry:
    """A submission as programs; a `timetrial.programs.Origin`."""

    def __init__(
        self, trace: Callable[[], Handed], workload: Workload, scalars: Mapping[str, Any], *, platform: str
    ) -> None:
        """`trace` gets the programs; `scalars` are the hyperparameters that they take as arguments."""
        self._trace = trace
        self._scalars = {name: jnp.asarray(value) for name, value in scalars.items()}
        self._platform = platform
        self._constant_bytes = CONSTANT_BYTES + loss_constant_bytes(workload)

    @property
    def folder(self) -> Path | None:
        return None

    def prepare(self, problem: WorkloadProblem, task: Task) -> Prepared:
        del task  # the other process has its like
        handed = self._trace()
        problem.ignored.update(handed.ignored)
        if not {"begin", "step"} <= set(handed.programs) <= {"begin", "step", "eval_params"}:
            raise ContractError(f"there are programs {', '.join(sorted(handed.programs))}; begin and step are needed")
        programs = {
            name: _Program(name, serialized, self._platform, self._constant_bytes)
            for name, serialized in handed.programs.items()
        }
        functions = _functions(programs, sorted(self._scalars))
        return Prepared(functions=functions, scalars=self._scalars, batch_size=handed.batch_size)


class _Program:
    """One program, read back and inspected."""

    def __init__(self, name: str, serialized: bytes, platform: str, constant_bytes: int) -> None:
        try:
            self._exported = export.deserialize(bytearray(serialized))
            text = self._exported.mlir_module()
        except Exception as error:  # whatever is made of bytes that are no program
            raise ContractError(f"the program {name} cannot be read: {type(error).__name__}") from None
        found = self._exported
        if found.nr_devices != 1 or tuple(found.platforms) != (platform,):
            raise ContractError(f"the program {name} is for {found.nr_devices} devices of {', '.join(found.platforms)}")
        if found.ordered_effects or found.unordered_effects:
            raise ContractError(f"the program {name} has effects: callbacks and prints are not allowed")
        inspected = inspect(text)
        if inspected.constant_bytes > constant_bytes:
            raise ContractError(
                f"the program {name} holds {inspected.constant_bytes:,} bytes of written-out numbers; "
                f"at most {constant_bytes:,} are allowed, or it could carry trained weights"
            )
        self.rows = inspected.rows

    @property
    def results(self) -> Sequence[Any]:
        return self._exported.out_avals

    def check(self, name: str, arguments: Any, results: Any) -> None:
        """Raises `ContractError` unless the program takes and returns arrays of these shapes and dtypes."""
        for what, found, wanted in (
            ("takes", self._exported.in_avals, arguments),
            ("returns", self._exported.out_avals, results),
        ):
            shapes = [(tuple(x.shape), x.dtype) for x in jax.tree.leaves(wanted)]
            if [(tuple(x.shape), x.dtype) for x in found] != shapes:
                raise ContractError(f"the program {name} {what} arrays of other shapes or types than the workload's")

    def __call__(self, *arguments: Any) -> Any:
        return self._exported.call(*arguments)


def _functions(programs: Mapping[str, _Program], names: Sequence[str]) -> Functions:
    begin_program, step_program = programs["begin"], programs["step"]
    eval_program = programs.get("eval_params")

    def given(state: TrainState, batch: Batch, key: Array, scalars: Scalars) -> tuple[Any, ...]:
        weights = [] if batch.weights is None else [batch.weights]
        named = [scalars[name] for name in names]
        words = jax.random.key_data(key)
        return (
            list(state.params), list(state.model_state), list(state.opt_state), state.step,
            list(batch.rows), weights, words, named,
        )  # fmt: skip

    def counted(program: _Program, state: TrainState, key: Array) -> TrainState:
        """The state, marked with the rows that the program passes through the loss."""
        rows = UNKNOWN if program.rows is None else program.rows
        return state._replace(params=mark(list(state.params), key, rows))

    def begin(params: Leaves, model_state: Leaves, key: Array, scalars: Scalars) -> TrainState:
        arguments = (list(params), list(model_state), jax.random.key_data(key), [scalars[name] for name in names])
        begin_program.check("begin", arguments, begin_program.results)
        opt_state = begin_program(*arguments)
        return TrainState(params, model_state, list(opt_state), jnp.zeros((), jnp.int32))

    def step(state: TrainState, batch: Batch, key: Array, scalars: Scalars) -> tuple[TrainState, Array]:
        arguments = given(counted(step_program, state, key), batch, key, scalars)
        loss = jax.ShapeDtypeStruct((), jnp.float32)
        step_program.check("step", arguments, (*arguments[:3], loss))
        params, model_state, opt_state, found = step_program(*arguments)
        return TrainState(params, model_state, opt_state, state.step + 1), found

    def eval_params(state: TrainState, batch: Batch, key: Array, scalars: Scalars) -> tuple[Leaves, Leaves]:
        assert eval_program is not None
        arguments = given(counted(eval_program, state, key), batch, key, scalars)
        eval_program.check("eval_params", arguments, arguments[:2])
        params, model_state = eval_program(*arguments)
        return params, model_state

    return Functions(begin, step, None if eval_program is None else eval_params)


def loss_constant_bytes(workload: Workload) -> int:
    """What the workload's own loss and its gradient hold in written-out numbers."""
    params, model_state = jax.eval_shape(workload.init, jax.random.key(0))
    batch = workload.abstract_batch(workload.default_batch_size)

    def loss(params: Any, model_state: Any, batch: Any, key: Array) -> Array:
        outputs, _ = workload.apply(params, model_state, batch, key, train=True)
        losses, _ = workload.loss(outputs, batch)
        return jnp.sum(losses)

    key = jax.eval_shape(lambda: jax.random.key(0))
    exported = export.export(jax.jit(jax.grad(loss, allow_int=True)))(params, model_state, batch, key)
    return inspect(exported.mlir_module()).constant_bytes
