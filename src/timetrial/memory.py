"""What a training step needs of a device, as its compiler says: nothing is allocated and no data are read."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from timetrial.devices import Mesh
from timetrial.problem import WorkloadProblem, make_task
from timetrial.programs import Entry, Programs
from timetrial.submission import TrainState, from_optax
from timetrial.workload import PyTree, Workload


def step_memory(
    workload: Workload, batch_size: int, mesh: Mesh, compiler_options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Bytes of one device for a step of AdamW on `batch_size` rows, which all devices of the mesh share.

    `params`, `model_state` and `optimizer` lie on every device and are overwritten by the step; `temporaries` are
    what the program needs beside its arguments and results; `peak` is all of it. The training data, where they stay on
    the device, come on top: at most a quarter of its memory.
    """
    step = _step(workload, batch_size, mesh)
    compiled = step.lowered.compile(compiler_options=compiler_options and dict(compiler_options))
    found: Any = compiled.memory_analysis()
    peak = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return {
        "batch_size": batch_size,
        "params": _bytes(step.state.params),
        "model_state": _bytes(step.state.model_state),
        "optimizer": _bytes(step.state.opt_state),
        "batch": _bytes(step.batch) // mesh.size,
        "temporaries": found.temp_size_in_bytes,
        "output": found.output_size_in_bytes - found.alias_size_in_bytes,
        "peak": peak + found.temp_size_in_bytes,
    }


def step_flops(workload: Workload, batch_size: int, mesh: Mesh) -> float:
    """Operations of the same step on all devices, as XLA counts them before it compiles.

    The turns of a loop count once, so that models with recurrence (an LSTM, CTC's sums) do a little more.
    """
    return _step(workload, batch_size, mesh).lowered.cost_analysis()["flops"]


class _Step(NamedTuple):
    """A step that is ready to be compiled, and the shapes of what it takes."""

    lowered: Any
    state: TrainState
    batch: Any


def _step(workload: Workload, batch_size: int, mesh: Mesh) -> _Step:
    problem = WorkloadProblem(workload)
    task = make_task(workload, horizon_examples=1, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    entry = Entry(make=lambda hparams, task: from_optax(optax.adamw(1e-4)), folder=None, hparams={}, traced=frozenset())
    programs = Programs(entry.prepare(problem, task).functions, problem, mesh, batch_size)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, model_state = jax.eval_shape(workload.init, key)
    state = jax.eval_shape(programs.begin, jax.tree.leaves(params), jax.tree.leaves(model_state), key, {})
    rows = mesh.round_up(batch_size)
    named: dict[str, Any] = dict(workload.abstract_batch(rows))
    if rows > batch_size:
        named["weights"] = jax.ShapeDtypeStruct((rows,), jnp.float32)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=mesh.by_row), problem.anonymous(named)
    )
    everywhere = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=mesh.replicated), (state, key))
    return _Step(programs.step.lower(everywhere[0], batch, everywhere[1], {}), state, batch)


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
