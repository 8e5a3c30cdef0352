"""The process that evaluates parameters again, for one workload. No code of a submission comes into it.

It reads a request from standard input (workload, precision, cores, trials: what of each is to be evaluated), and
answers with one line of JSON for the workload and one for each trial. Nothing is written but compiled programs, in the
user's cache.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timetrial.ruleset import MatmulPrecision
    from timetrial.workload import Workload

Loaded = tuple["Workload", str, list[str]]
"""A workload, its SHA-256, and how it differs from its lock."""


def main(load: Callable[[str], Loaded] | None = None) -> int:
    """Answers the request on standard input; `load` gives the workload of a name, a test's own one for example."""
    from absl import logging

    from timetrial.errors import UserError

    logging.set_verbosity(logging.ERROR)  # orbax warns that a folder is only read
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if request["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])  # before jax starts its threads, which are as many as these
    try:
        from timetrial.compilation import cache_folder, use_cache

        use_cache(cache_folder())
        recomputer = Recomputer((load or _load)(request["workload"]), request["matmul_precision"])
        print(json.dumps({"workload": recomputer.workload()}), file=answers)
        for asked in request["trials"]:
            print(json.dumps({"trial": asked["folder"], **recomputer.trial(asked)}), file=answers)
    except UserError as error:
        print(json.dumps({"failed": str(error)}), file=answers)
    return 0


class Recomputer:
    """Evaluates parameters of one workload; its programs are compiled once for all trials."""

    def __init__(self, loaded: Loaded, precision: "MatmulPrecision | None" = None) -> None:
        import jax

        from timetrial.devices import Mesh
        from timetrial.evaluate import Evaluator
        from timetrial.workload import at_precision

        self._workload, self._sha256, self._lock = loaded
        self._workload.data.prepare(verify=True)
        mesh = Mesh.local()
        self._evaluate = Evaluator(at_precision(self._workload, precision), mesh)
        self._init = jax.jit(self._workload.init, out_shardings=mesh.replicated)
        self._untrained: dict[tuple[int, str], dict[str, float]] = {}

    def workload(self) -> dict[str, Any]:
        """The JSON of `WorkloadFacts`."""
        from timetrial import machine

        workload = self._workload
        return {
            "workload": workload.name,
            "version": workload.version,
            "sha256": self._sha256,
            "target": None if workload.target is None else workload.target.to_json(),
            "test_target": None if workload.test_target is None else workload.test_target.to_json(),
            "default_batch_size": workload.default_batch_size,
            "rows": {name: len(workload.rows(name)) for name in ("train_eval", "valid", "test")},
            "lock": self._lock,
            "hardware": machine.hardware(),
            "packages": machine.packages(),
        }

    def trial(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of `TrialFacts`: what the untrained model and the kept parameters of a trial give."""
        which = (asked["init_seed"], ",".join(asked["untrained"]))
        if which not in self._untrained:
            params, model_state = self._init(_key(asked["init_seed"]))
            self._untrained[which] = self._evaluate(params, model_state, asked["untrained"])
        return {"untrained": self._untrained[which], "evaluated": self._kept(asked)}

    def _kept(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """SHA-256 and metrics of the parameters that are kept beside a record, by the position of their evals."""
        import jax
        import numpy as np

        from timetrial.checkpoint import Checkpoints, hash_arrays, like_tree
        from timetrial.keeper import EVALUATED_FOLDER

        shapes = jax.eval_shape(self._workload.init, jax.random.key(0))
        like = [np.zeros(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shapes)]
        found: dict[str, Any] = {position: {"sha256": None, "metrics": {}} for position in asked["evals"]}
        folder = Path(asked["folder"], EVALUATED_FOLDER)
        if not folder.is_dir():
            return found
        kept = Checkpoints(folder, read_only=True)
        for position, (step, splits) in asked["evals"].items():
            checkpoint = kept.at(step, like)
            if checkpoint is not None:
                params, model_state = like_tree(shapes, checkpoint.arrays)
                metrics = self._evaluate(params, model_state, splits)
                found[position] = {"sha256": hash_arrays(checkpoint.arrays), "metrics": metrics}
        kept.close()
        return found


def _key(seed: int) -> Any:
    """A key of all 64 bits of `seed`."""
    import jax
    import jax.numpy as jnp

    return jax.random.wrap_key_data(jnp.array([seed >> 32, seed & 0xFFFFFFFF], jnp.uint32), impl="threefry2x32")


def _load(name: str) -> Loaded:
    from timetrial.lock import changes, describe, read_lock, workload_sha256
    from timetrial.registry import base_of, load_workload, shipped

    workload, base = load_workload(name), base_of(name)
    locks = read_lock()
    locked = name if name in locks else base
    if locked not in locks:
        said = [f"{base} has no lock"]
    else:
        said = changes(
            locks[locked], describe(workload if locked == name else load_workload(base), shipped("workloads") / base)
        )
    return workload, workload_sha256(workload), said


if __name__ == "__main__":
    sys.exit(main())
