"""What instruments cost: the time of a run with them over that of the same run without, for each set and interval.

A small convolutional net (Cockpit's 3c3d: three convolutions, three dense layers, 32 x 32 x 3, ten classes) on noise,
batches of 128, Adam with its learning rate in its state, so that nothing is absent. Steps alone and looks take turns
within one process; a ratio is what a look adds, spread over the interval, over a step. With --cpu both are told by
processor time, which a busy machine disturbs less than the clock on the wall, and which counts all cores.

    python benchmarks/instruments.py [--cpu] [--sets economy …] [--every 1 16 64]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from toys import toy_workload

from timetrial import from_optax
from timetrial.data import InMemory
from timetrial.devices import Mesh
from timetrial.instrument_log import SETS, Choice
from timetrial.instruments.observer import Observer
from timetrial.problem import make_task
from timetrial.programs import Entry
from timetrial.trainer import PureTrainer
from timetrial.workload import Batch, Field, ParamInfo, Workload

SIDE, CHANNELS, CLASSES, BATCH = 32, 3, 10, 128


class Net(nn.Module):
    """Cockpit's 3c3d."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for features, size in ((64, 5), (96, 3), (128, 3)):
            x = nn.relu(nn.Conv(features, (size, size))(x))
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        x = x.reshape(x.shape[0], -1)
        for features in (512, 256):
            x = nn.relu(nn.Dense(features)(x))
        return nn.Dense(CLASSES)(x)


def workload() -> Workload:
    """The net on images of noise."""
    net = Net()
    fields = {"x": Field((SIDE, SIDE, CHANNELS), np.float32), "label": Field((), np.int32, below=CLASSES)}

    def init(key: Any) -> tuple[Any, Any]:
        return net.init(key, jnp.zeros((1, SIDE, SIDE, CHANNELS)))["params"], {}

    def apply(params: Any, model_state: Any, batch: Batch, *_: Any, **__: Any) -> tuple[Any, Any]:
        return net.apply({"params": params}, batch["x"]), model_state

    def loss(outputs: Any, batch: Batch, **_: Any) -> tuple[Any, Any]:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"])
        return losses, jnp.ones_like(losses)

    info = jax.tree.map(lambda x: ParamInfo(kind="weight", shape=x.shape), jax.eval_shape(init, jax.random.key(0))[0])
    changes: dict[str, Any] = {"init": init, "apply": apply, "loss": loss, "fields": fields, "param_info": info}
    base = toy_workload(**changes, default_batch_size=BATCH, max_batch_size=BATCH)
    rows = {name: base.random_batch(8 * BATCH, seed) for seed, name in enumerate(("train", "valid", "test"))}
    return toy_workload(
        **changes, default_batch_size=BATCH, max_batch_size=BATCH, data=InMemory.holding(rows, like=base.data)
    )


def measure(trainer: PureTrainer, observer: Observer, turns: int, now: Callable[[], float]) -> tuple[float, float]:
    """Seconds of a step between two looks, and what a look adds: medians over turns of one look and four steps each."""
    steps: list[float] = []
    looks: list[float] = []
    for turn in range(turns + 1):
        first = trainer.counts().step
        began = now()
        observer.before(trainer.counts(), 0.0)
        copied = now()
        trainer.run(lambda counts, first=first: counts.step >= first + 1)
        stepped = now()
        observer.after(trainer.counts().step)
        looked = now()
        trainer.run(lambda counts, first=first: counts.step >= first + 4)
        ended = now()
        if turn:  # the first compiles
            steps.append((ended - looked) / 3)
            # A step that stands alone may take longer than one of three: that is the look's doing.
            looks.append((copied - began) + (looked - stepped) + (stepped - copied) - (ended - looked) / 3)
    return statistics.median(steps), statistics.median(looks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--every", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="processor time in place of wall time")
    args = parser.parse_args()
    now = time.process_time if args.cpu else time.perf_counter
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, {'processor' if args.cpu else 'wall'} time")
    mesh, net = Mesh.local(), workload()
    task = make_task(net, horizon_examples=10**6, device_count=mesh.size, device_memory_bytes=mesh.memory_bytes)
    entry = Entry(
        make=lambda hparams, task: from_optax(optax.inject_hyperparams(optax.adam)(1e-3)),
        folder=None,
        hparams={},
        traced=frozenset(),
    )
    for name in args.sets:
        trainer = PureTrainer(net, entry, task, seed=len, mesh=mesh, now=time.perf_counter, exact_examples=True)
        trainer.start()
        with tempfile.TemporaryDirectory() as folder:
            choice = Choice(set=name, every=1)
            observer = Observer(trainer, net, choice, Path(folder), seed=0, mesh=mesh, now=now, resume=False)
            step, look = measure(trainer, observer, args.turns, now)
            observer.close()
        trainer.close()
        ratios = {f"every_{every}": round(1 + look / step / every, 3) for every in args.every}
        print(json.dumps({"set": name, "step_ms": 1e3 * step, "look_ms": 1e3 * look, **ratios}), flush=True)


if __name__ == "__main__":
    main()
