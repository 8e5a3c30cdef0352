"""A batch split over many devices trains like the same batch on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from timetrial.registry import workload_names

SCRIPT = Path(__file__).parents[1] / "support" / "losses.py"
QUICK = ("flights", "lobes")
"""One with embeddings and one with batch norm; the others are slow."""


def losses(workload, batch_size, devices):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": "32",  # a pool of threads that the devices' rendezvous cannot exhaust
    }
    command = [sys.executable, str(SCRIPT), workload, str(batch_size)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found = json.loads(output)
    assert found["devices"] == devices
    return found["losses"]


def marks_of(workload):
    return [] if workload in QUICK else [pytest.mark.slow]


@pytest.mark.parametrize(
    ("workload", "batch_size"),
    [("toy", 16), ("toy", 13), *(pytest.param(name, 32, marks=marks_of(name)) for name in workload_names("mini"))],
    ids=lambda value: {13: "13 rows, which 8 devices do not divide"}.get(value, str(value)),
)
def test_eight_devices_train_like_one(workload, batch_size):
    one, eight = losses(workload, batch_size, 1), losses(workload, batch_size, 8)
    assert len(one) == 20
    assert one[-1] != one[0]
    assert eight == pytest.approx(one, rel=1e-5)


PER_ROW = """
import sys
sys.path.insert(0, {path!r})
import jax, jax.numpy as jnp
from toys import toy_workload
from timetrial import Submission
from timetrial.devices import Mesh
from timetrial.problem import make_task
from timetrial.programs import Entry
from timetrial.trainer import PureTrainer

def step(problem, state, batch, key):
    _, aux = problem.loss(state.params, state.model_state, batch, key)
    return state._replace(opt_state=aux.losses), {{"loss": jnp.mean(state.opt_state)}}

workload, mesh = toy_workload(), Mesh.local()
task = make_task(workload, horizon_examples=1000, device_count=mesh.size, device_memory_bytes=1)
submission = Submission(lambda params, model_state, key: jnp.ones(16), step)
entry = Entry(make=lambda hparams, task: submission, folder=None, hparams={{}}, traced=frozenset())
trainer = PureTrainer(workload, entry, task, seed=len, mesh=mesh, now=lambda: 0.0, exact_examples=True)
trainer.start()
trainer.run(lambda counts: counts.step >= 3)
print(len({{x.sharding for x in jax.tree.leaves(trainer.state)}}))
"""


def test_a_state_with_a_value_for_each_row_stays_on_all_devices_alike():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "NPROC": "32"}
    command = [sys.executable, "-c", PER_ROW.format(path=str(SCRIPT.parent))]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert output == "1\n"


PACKS = """
import re
from dataclasses import replace
import jax, jax.numpy as jnp
from timetrial.devices import Mesh
from timetrial.workloads import ogbg

workload, mesh = ogbg.build(replace(ogbg.MODEL, steps=1)), Mesh.local()
params, _ = jax.eval_shape(workload.init, jax.random.key(0))
batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=mesh.by_row), workload.abstract_batch(128)
)

def loss(params, batch):
    return jnp.sum(workload.apply(params, {}, batch, jax.random.key(0), train=True)[0])

text = jax.jit(jax.grad(loss), in_shardings=(mesh.replicated, mesh.by_row)).lower(params, batch).compile().as_text()
print(*sorted({*re.findall(r" (all-[a-z]+|collective-[a-z]+|reduce-scatter)\\(", text)}))
"""


def test_molecules_are_packed_on_the_device_that_has_their_rows():
    """Devices add up gradients, and agree on whether all packs have room; nothing else goes between them."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "NPROC": "32"}
    output = subprocess.run([sys.executable, "-c", PACKS], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout == "all-reduce\n"
