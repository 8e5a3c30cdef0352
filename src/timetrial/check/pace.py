"""How fast this machine trains a workload: steps of AdamW on noise, so that no data are needed."""

import time

import optax

from timetrial.check.conformance import on_noise
from timetrial.devices import Mesh
from timetrial.problem import make_task
from timetrial.programs import Entry
from timetrial.submission import from_optax
from timetrial.trainer import PureTrainer
from timetrial.workload import Workload


def seconds_a_step(workload: Workload, *, seconds: float = 1.0) -> float:
    """Of AdamW at the default batch size, measured for about `seconds` once the step is compiled."""
    mesh = Mesh.local()
    task = make_task(workload, horizon_examples=1, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    entry = Entry(make=lambda hparams, task: from_optax(optax.adamw(1e-4)), folder=None, hparams={}, traced=frozenset())
    trainer = PureTrainer(
        on_noise(workload), entry, task, seed=len, mesh=mesh, now=time.perf_counter, exact_examples=False
    )
    try:
        trainer.start()
        trainer.run(lambda counts: counts.step >= 3)
        before, began = trainer.counts().step, time.perf_counter()
        trainer.run(lambda counts: counts.step > before and time.perf_counter() - began >= seconds)
        return (time.perf_counter() - began) / (trainer.counts().step - before)
    finally:
        trainer.close()
