"""A pure submission as programs: traced here, in the process that nobody trusts, to be run where no Python of it is.

A program's arguments and results are flat lists of arrays: parameters and model state in the workload's order, the
optimizer's state in that of `jax.tree.leaves`, keys as their words. So it needs no code to be read back (`exported`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from timetrial.problem import WorkloadProblem
from timetrial.programs import Functions, Prepared
from timetrial.submission import Batch, TrainState
from timetrial.workload import Array, Workload

KEY_IMPLEMENTATION = "threefry2x32"


def export_submission(
    prepared: Prepared, workload: Workload, problem: WorkloadProblem, *, rows: int, weighted: bool, platform: str
) -> dict[str, bytes]:
    """The programs `begin`, `step` and, where the submission has it, `eval_params`.

    Args:
        prepared: the submission, without hooks on the host.
        workload: gives shapes; its data are not touched.
        problem: what the submission's `problem` is.
        rows: of a batch, padding included.
        weighted: whether batches come with weights.
        platform: for which to lower: cpu, cuda, …
    """
    params, model_state = map(jax.tree.leaves, jax.eval_shape(workload.init, jax.random.key(0)))
    batch = problem.anonymous(workload.abstract_batch(rows))
    weights = [jax.ShapeDtypeStruct((rows,), jnp.float32)] if weighted else []
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    scalars = [jax.ShapeDtypeStruct(x.shape, x.dtype) for _, x in sorted(prepared.scalars.items())]
    functions = Flat(prepared)

    state = jax.eval_shape(functions.begin, params, model_state, key, scalars)
    functions.structure = jax.tree.structure(jax.eval_shape(functions.state, params, model_state, key, scalars))
    arguments = (
        params,
        model_state,
        state,
        jax.ShapeDtypeStruct((), jnp.int32),
        list(batch.rows),
        weights,
        key,
        scalars,
    )
    wanted: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "begin": (functions.begin, (params, model_state, key, scalars)),
        "step": (functions.step, arguments),
    }
    if prepared.functions.eval_params is not None:
        wanted["eval_params"] = (functions.eval_params, arguments)
    return {
        name: bytes(export.export(jax.jit(function), platforms=[platform])(*given).serialize())
        for name, (function, given) in wanted.items()
    }


class Flat:
    """A submission's functions on flat lists of arrays."""

    structure: Any
    """Of the optimizer's state."""

    def __init__(self, prepared: Prepared) -> None:
        self._functions: Functions = prepared.functions
        self._names = sorted(prepared.scalars)

    def state(self, params: Any, model_state: Any, key: Array, scalars: Sequence[Array]) -> Any:
        begun = self._functions.begin(params, model_state, _key(key), self._named(scalars))
        return begun.opt_state

    def begin(self, params: Any, model_state: Any, key: Array, scalars: Sequence[Array]) -> list[Array]:
        return jax.tree.leaves(self.state(params, model_state, key, scalars))

    def step(
        self,
        params: Any,
        model_state: Any,
        opt_state: Sequence[Array],
        step: Array,
        rows: Sequence[Array],
        weights: Sequence[Array],
        key: Array,
        scalars: Sequence[Array],
    ) -> tuple[Any, Any, list[Array], Array]:
        state = TrainState(params, model_state, jax.tree.unflatten(self.structure, opt_state), step)
        new, loss = self._functions.step(state, _batch(rows, weights), _key(key), self._named(scalars))
        return list(new.params), list(new.model_state), jax.tree.leaves(new.opt_state), loss

    def eval_params(
        self,
        params: Any,
        model_state: Any,
        opt_state: Sequence[Array],
        step: Array,
        rows: Sequence[Array],
        weights: Sequence[Array],
        key: Array,
        scalars: Sequence[Array],
    ) -> tuple[Any, Any]:
        assert self._functions.eval_params is not None
        state = TrainState(params, model_state, jax.tree.unflatten(self.structure, opt_state), step)
        evaluated = self._functions.eval_params(state, _batch(rows, weights), _key(key), self._named(scalars))
        return list(evaluated[0]), list(evaluated[1])

    def _named(self, scalars: Sequence[Array]) -> Mapping[str, Array]:
        return dict(zip(self._names, scalars, strict=True))


def _batch(rows: Sequence[Array], weights: Sequence[Array]) -> Batch:
    return Batch(tuple(rows), weights[0] if weights else None)


def _key(words: Array) -> Array:
    return jax.random.wrap_key_data(words, impl=KEY_IMPLEMENTATION)


def as_arrays(programs: Mapping[str, bytes]) -> list[np.ndarray]:
    """The programs' bytes, by name in sorted order, as arrays to be sent."""
    return [np.frombuffer(programs[name], np.uint8) for name in sorted(programs)]
