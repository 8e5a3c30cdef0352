"""Two published algorithms, written natively, train as their originals do through the adapter."""

import os
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from toy_trials import write

from timetrial.check.conformance import on_noise
from timetrial.devices import Mesh
from timetrial.loading import find_source, load
from timetrial.problem import make_task
from timetrial.registry import load_workload
from timetrial.trainers import importable, make_trainer
from timetrial.tuning import default_point

STEPS = 20
NADAMW = """
    import jax, jax.numpy as jnp
    from timetrial import Submission, TrainState

    RATE, B1, B2, DECAY = 0.001308209823469072, 1 - 0.02686663061, 0.9981232922116359, 0.16375311233774334

    def rate(count, horizon, warmup=0.1):
        steps = int(warmup * horizon)
        cosine = RATE * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((count - steps) / (horizon - steps), 0, 1)))
        return jnp.where(count < steps, RATE * count / steps, cosine)

    def make(hparams, task):
        def init(params, model_state, key):
            return [jnp.zeros_like(p) for p in params], [jnp.zeros_like(p) for p in params]

        def step(problem, state, batch, key):
            loss = lambda p: problem.loss(p, state.model_state, batch, key, label_smoothing=0.1)
            (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
            t, (first, second) = state.step + 1, state.opt_state
            first = [B1 * m + (1 - B1) * g for m, g in zip(first, grads)]
            second = [B2 * v + (1 - B2) * g * g for v, g in zip(second, grads)]
            ahead = [(B1 * m + (1 - B1) * g) / (1 - B1 ** t) for m, g in zip(first, grads)]
            root = [jnp.sqrt(v / (1 - B2 ** t)) + 1e-8 for v in second]
            now = rate(state.step, task.horizon_steps())
            params = [p - now * (a / r + DECAY * p) for p, a, r in zip(state.params, ahead, root)]
            return TrainState(params, aux.model_state, (first, second), state.step), {"loss": value}

        return Submission(init=init, step=step)
"""
SCHEDULE_FREE = """
    from optax.contrib import schedule_free_adamw, schedule_free_eval_params
    from timetrial import from_optax

    def make(hparams, task):
        tx = schedule_free_adamw(0.0025, warmup_steps=int(0.02 * task.horizon_steps() * 0.75), b1=0.9,
                                 b2=0.9955159689799007, weight_decay=0.08121616522670176, weight_lr_power=2)
        return from_optax(tx, eval_params=schedule_free_eval_params)
"""


@pytest.fixture
def published() -> Path:
    """A copy of github.com/mlcommons/submissions_algorithms."""
    folder = os.environ.get("TIMETRIAL_ALGOPERF_SUBMISSIONS")
    if not folder:
        pytest.skip("needs the published submissions: set TIMETRIAL_ALGOPERF_SUBMISSIONS to their repository's folder")
    extra = "needs timetrial[algoperf] to set TIMETRIAL_ALGOPERF_SUBMISSIONS to their repository's folder"
    pytest.importorskip("chex", reason=extra)
    return Path(folder)


def without_dropout(workload):
    """The workload with nothing random: the two APIs draw their keys differently."""

    def apply(params, model_state, batch, key, *, train, dropout_rate=None):
        return workload.apply(params, model_state, batch, key, train=train, dropout_rate=0.0)

    return on_noise(replace(workload, apply=apply))


def curve(source, workload):
    """The loss on a fixed batch after each step, by the parameters that the submission wants evaluated."""
    mesh = Mesh.local()
    horizon = 1000 * workload.default_batch_size
    task = make_task(workload, horizon_examples=horizon, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    batch = workload.random_batch(workload.default_batch_size, seed=1)

    @jax.jit
    def loss(params, state):
        outputs, _ = workload.apply(params, state, batch, jax.random.key(0), train=False)
        losses, terms = workload.loss(outputs, batch)
        return losses.sum() / terms.sum()

    with importable(source):
        loaded = load(source)
        point = default_point(loaded.search_space) if loaded.search_space else {}
        trainer = make_trainer(
            source,
            lambda: loaded,
            point,
            workload,
            task,
            seed=len,
            mesh=mesh,
            now=time.perf_counter,
            exact_examples=False,
        )
        try:
            trainer.start()
            found = []
            for step in range(1, STEPS + 1):
                trainer.run(lambda counts, step=step: counts.step >= step)
                found.append(float(loss(*trainer.evaluated())))
            return np.array(found)
        finally:
            trainer.close()


@pytest.mark.filterwarnings("ignore:Some donated buffers", "ignore:optax.global_norm")  # the original's own
@pytest.mark.parametrize(
    ("original", "native"),
    [
        ("previous_leaderboards/algoperf_v05/submissions/external_tuning/baseline", NADAMW),
        ("submissions/self_tuning/schedule_free_adamw_jax", SCHEDULE_FREE),
    ],
)
def test_a_published_algorithm_written_natively_gives_the_same_loss_curve(published, tmp_path, original, native):
    workload = without_dropout(load_workload("flights"))
    theirs = curve(find_source(str(published / original)), workload)
    ours = curve(write(tmp_path, native), workload)
    assert np.ptp(theirs) > 1e-3
    assert ours == pytest.approx(theirs, rel=1e-4)
