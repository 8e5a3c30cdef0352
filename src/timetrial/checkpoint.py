"""Checkpoints of a trial: what it takes to go on bit for bit, written by orbax, the newest two kept.

A checkpoint is a list of arrays and a JSON object. It appears under its number in one rename, so a crash while writing
leaves the one before; arrays that do not hash to what was saved are as good as absent.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FOLDER = "checkpoints"
"""Beside a record, while the trial is not over."""
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A trial at a step boundary."""

    arrays: Sequence[np.ndarray]
    numbers: Mapping[str, Any]
    """JSON: counts, clocks, positions."""


class Checkpoints:
    """The checkpoints in a folder."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Makes the folder where it is missing; `read_only` neither writes there nor clears away."""
        import orbax.checkpoint as ocp

        self._ocp: Any = ocp
        self._folder = folder.resolve()
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
        writing: dict[str, Any] = {"max_to_keep": _KEPT, "create": False, "cleanup_tmp_directories": True}
        reading: dict[str, Any] = {"read_only": True, "create": False, "save_interval_steps": 0}
        if jax.process_count() > 1:  # the others know nothing of it: orbax would wait for them
            own = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
            )
            reading["multiprocessing_options"] = writing["multiprocessing_options"] = alone
        options: Any = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False, **(reading if read_only else writing)
        )
        self._manager: Any = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, checkpoint: Checkpoint) -> str:
        """Writes the checkpoint of a step, in place of an older one of that step, and drops all but the newest two.

        Returns the SHA-256 of its arrays.
        """
        if step in self._manager.all_steps():
            self._manager.delete(step)
        saved = {str(i): array for i, array in enumerate(checkpoint.arrays) if array.size}  # orbax takes no empty ones
        sha256 = hash_arrays(checkpoint.arrays)
        about = {"numbers": checkpoint.numbers, "sha256": sha256}
        self._manager.save(
            step,
            args=self._ocp.args.Composite(
                arrays=self._ocp.args.StandardSave(saved), about=self._ocp.args.JsonSave(about)
            ),
            force=True,  # also a step before the newest, which a trial that was taken up comes to again
        )
        return sha256

    def newest(self, like: Sequence[np.ndarray]) -> Checkpoint | None:
        """The newest checkpoint that is whole; None where there is none.

        `like` gives the number, shapes and dtypes of the arrays; a checkpoint of other arrays is not whole.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            found = self.at(step, like)
            if found is not None:
                return found
        return None

    def at(self, step: int, like: Sequence[np.ndarray]) -> Checkpoint | None:
        """The checkpoint of a step; None where there is none that is whole."""
        wanted = {str(i): array for i, array in enumerate(like) if array.size}
        try:
            found: Any = self._manager.restore(
                step,
                args=self._ocp.args.Composite(
                    arrays=self._ocp.args.StandardRestore(wanted), about=self._ocp.args.JsonRestore()
                ),
            )
            arrays = [np.asarray(found.arrays.get(str(i), array)) for i, array in enumerate(like)]
            numbers, sha256 = found.about["numbers"], found.about["sha256"]
        except Exception:  # whatever orbax and what lies under it say of a torn file: the one before is used
            return None
        fits = all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(arrays, like, strict=True))
        return Checkpoint(arrays, numbers) if fits and hash_arrays(arrays) == sha256 else None

    def close(self) -> None:
        self._manager.close()


def discard(folder: Path) -> None:
    """Removes a trial's checkpoints, once it is over."""
    shutil.rmtree(folder, ignore_errors=True)


def to_host(tree: Any) -> list[np.ndarray]:
    """The leaves of a tree as numpy arrays; keys of jax as their words."""
    return [np.asarray(jax.device_get(_words(leaf))) for leaf in jax.tree.leaves(tree)]


def like_tree(tree: Any, arrays: Sequence[np.ndarray]) -> Any:
    """`arrays`, as `to_host` gave them, in the structure of `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    back = [
        jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array
        for leaf, array in zip(leaves, arrays, strict=True)
    ]
    return jax.tree.unflatten(structure, back)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _words(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def hash_arrays(arrays: Sequence[np.ndarray]) -> str:
    """SHA-256 over the dtypes, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
