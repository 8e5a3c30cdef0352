"""Prints, as JSON, the loss after each of the first 20 steps of SGD on all devices: `losses.py WORKLOAD BATCH_SIZE`."""

import dataclasses
import json
import sys

import jax
import optax
from toys import toy_workload

from timetrial import from_optax
from timetrial.data import InMemory
from timetrial.devices import Mesh
from timetrial.evaluate import Evaluator
from timetrial.problem import make_task
from timetrial.programs import Entry
from timetrial.registry import load_workload
from timetrial.trainer import PureTrainer


def main(name: str, batch_size: int) -> None:
    workload = toy_workload(batch_norm=True) if name == "toy" else load_workload(name)
    rows = {split: workload.random_batch(4 * batch_size, seed) for seed, split in enumerate(("train", "valid", "test"))}
    workload = dataclasses.replace(
        workload, data=InMemory.holding(rows, like=workload.data), train_eval_rows=batch_size
    )
    mesh = Mesh.local()
    task = make_task(workload, horizon_examples=1000, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    entry = Entry(
        make=lambda hparams, task: from_optax(optax.sgd(0.01), batch_size=batch_size),
        folder=None,
        hparams={},
        traced=frozenset(),
    )
    trainer = PureTrainer(workload, entry, task, seed=len, mesh=mesh, now=lambda: 0.0, exact_examples=True)
    evaluate = Evaluator(workload, mesh)
    trainer.start()
    losses: list[float] = []
    for step in range(1, 21):
        trainer.run(lambda counts, step=step: counts.step >= step)
        losses.append(evaluate(*trainer.evaluated(), ["train_eval"])["train_eval/loss"])
    print(json.dumps({"devices": jax.local_device_count(), "losses": losses}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
