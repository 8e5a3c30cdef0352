"""The locks of frozen workloads: `workloads/LOCK.toml`, one table a workload (DESIGN, rule 10).

A table pins the workload's source and data by SHA-256, and its behaviour by what it computes at its initial weights;
in the full track, where that would take minutes and gigabytes, by the arrays that it has. It also holds what
`timetrial list` prints, so that listing imports no workload. Tables that have not changed keep their bytes.
"""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timetrial import registry
from timetrial.errors import UserError

if TYPE_CHECKING:
    from timetrial.workload import Workload

LOCK_NAME = "LOCK.toml"
FINGERPRINT_ROWS = 16
FINGERPRINT_TOLERANCE = 1e-4
"""Relative. Thread counts, devices and versions of XLA move a float32 loss by less than 1e-5."""

_HEADER = """\
# The locks of the frozen workloads, written by `timetrial freeze`: not edited by hand.
# A workload that changed is a new workload, in a folder of its own (name_v2).
"""
Table = Mapping[str, Any]


def read_lock(folder: Path | None = None) -> dict[str, Table]:
    """The tables of the lock file in `folder` (default: the workloads that come with timetrial), by workload."""
    path = (registry.shipped("workloads") if folder is None else folder) / LOCK_NAME
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: {error}; restore it, or write it anew with `timetrial freeze`") from None


def write_tables(tables: Mapping[str, Table], drop: set[str], folder: Path) -> None:
    """Puts `tables` into the lock file of `folder` and takes `drop` out; every other table keeps its bytes."""
    path = folder / LOCK_NAME
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    blocks = {block[0]: block[1] for block in re.findall(r"^\[([^\[\]\n]+)\]\n((?:(?!\[).*\n)*)", old, re.MULTILINE)}
    bodies = {name: body.rstrip("\n") + "\n" for name, body in blocks.items() if name not in drop}
    bodies |= {name: "".join(f"{key} = {_toml(value)}\n" for key, value in t.items()) for name, t in tables.items()}
    path.write_text("\n".join([_HEADER, *(f"[{name}]\n{bodies[name]}" for name in sorted(bodies))]), encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def source_sha256(*folders: Path) -> str:
    """Over the names and bytes of a workload's files, less those that cannot change its behaviour: *.md, evidence/."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and path.suffix not in (".md", ".pyc") and inside.parts[0] != "evidence":
                content = path.read_bytes()
                digest.update(f"{inside.as_posix()}\0{len(content)}\0".encode())
                digest.update(content)
    return digest.hexdigest()


def _sources(workload: "Workload", folder: Path) -> list[Path]:
    """The workload's own folder, and those of what its track shares."""
    package = Path(__file__).parent
    return [folder, *([package / "full", package / "metrics"] if workload.track == "full" else [])]


def workload_sha256(workload: "Workload") -> str:
    """Of the source and the data of a workload or variant that comes with timetrial: what its records carry."""
    folder = registry.shipped("workloads") / registry.base_of(workload.name)
    source = source_sha256(*_sources(workload, folder))
    return hashlib.sha256((source + workload.data.sha256).encode()).hexdigest()


def fingerprint(workload: "Workload") -> dict[str, float]:
    """What the workload computes at its initial weights for seed 0 on a fixed batch of noise.

    The mean training loss with its gradient's global norm, and every metric of the batch.
    """
    import jax
    import numpy as np
    import optax

    batch = workload.random_batch(FINGERPRINT_ROWS, seed=0)
    init_key, step_key = jax.random.split(jax.random.key(0))
    params, model_state = jax.jit(workload.init)(init_key)

    def mean_loss(params: Any) -> Any:
        outputs, _ = workload.apply(params, model_state, batch, step_key, train=True)
        losses, terms = workload.loss(outputs, batch)
        return losses.sum() / terms.sum()

    loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(params)
    added = jax.jit(workload.evaluate)(params, model_state, batch)
    metrics = workload.finalize(
        {name: np.asarray(value, np.float64 if value.ndim == 0 else value.dtype) for name, value in added.items()}
    )
    values = {"train_loss": loss, "gradient_norm": optax.tree.norm(gradient), **metrics}
    return {name: float(value) for name, value in values.items()}


def arrays_sha256(*trees: Any) -> str:
    """Over the paths, shapes and dtypes of all leaves of some trees of arrays, or of what stands for arrays."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(trees)
    said = [(jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)) for path, leaf in leaves]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _behaviour(workload: "Workload", params: Any, model_state: Any) -> dict[str, Any]:
    if workload.track == "full":
        return {"arrays_sha256": arrays_sha256(params, model_state)}
    return {"fingerprint_tolerance": FINGERPRINT_TOLERANCE, "fingerprint": fingerprint(workload)}


def describe(workload: "Workload", folder: Path) -> dict[str, Any]:
    """The workload's table; `folder` holds its source."""
    import jax

    params, model_state = jax.eval_shape(workload.init, jax.random.key(0))
    arrays = jax.tree.leaves(params)
    table: dict[str, Any] = {
        "version": workload.version,
        "track": workload.track,
        "task": workload.task,
        "parameters": sum(math.prod(array.shape) for array in arrays),
        "parameter_arrays": len(arrays),
        "default_batch_size": workload.default_batch_size,
        "metric": workload.metric,
        "better": workload.better,
    }
    if workload.target is not None:
        table["target"] = workload.target.to_json()
    if workload.variant_of is not None:
        table["variant_of"] = workload.variant_of
    if workload.data.prepared():
        for split in ("train", "valid", "test"):
            table[f"{split}_examples"] = len(workload.rows(split))
    return table | {
        "source_sha256": source_sha256(*_sources(workload, folder)),
        "data": f"{workload.data.name} {workload.data.version}",
        "data_sha256": workload.data.sha256,
        **_behaviour(workload, params, model_state),
    }


def changes(locked: Table, found: Table) -> list[str]:
    """What differs between a locked table and the same workload's table now, in words. Empty when the lock holds.

    The numbers of examples are not compared: the hash of the data stands for them, and needs no data.
    """
    said: list[str] = []
    for key in sorted({*locked, *found}):
        old, new = locked.get(key), found.get(key)
        if key == "fingerprint":
            said += _fingerprint_changes(old or {}, new or {}, float(locked.get("fingerprint_tolerance", 0.0)))
        elif old != new and not key.endswith("_examples"):
            said.append(f"{key}: {_short(old)} -> {_short(new)}")
    return said


def _fingerprint_changes(old: Mapping[str, float], new: Mapping[str, float], tolerance: float) -> list[str]:
    def same(name: str) -> bool:
        if name not in old or name not in new:
            return False
        both_nan = math.isnan(old[name]) and math.isnan(new[name])
        return both_nan or math.isclose(old[name], new[name], rel_tol=tolerance, abs_tol=1e-8)

    return [
        f"behaviour at the initial weights: {name} {old.get(name)} -> {new.get(name)}"
        for name in sorted({*old, *new})
        if not same(name)
    ]


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


def current_table(name: str) -> dict[str, Any]:
    """The table of a workload or variant that comes with timetrial, as it is now. Imports jax."""
    return describe(registry.load_workload(name), registry.shipped("workloads") / registry.base_of(name))
