"""The devices of a trial as one mesh: batches are split over its axis `data`, everything else is replicated.

They are those of this process, or of all processes of the trial; each of those then holds its share of a batch's rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import Mesh as JaxMesh
from jax.sharding import PartitionSpec as P

from timetrial import machine
from timetrial.batches import Share


@dataclass(frozen=True)
class Mesh:
    """A mesh of devices named `data`."""

    mesh: JaxMesh
    told_memory_bytes: int | None = None
    """`memory_bytes` of the first of several processes: what depends on it must not differ between them."""

    @staticmethod
    def local() -> "Mesh":
        """Over all devices of this process."""
        return _mesh(jax.local_devices())

    @staticmethod
    def of_all_processes(told_memory_bytes: int | None = None) -> "Mesh":
        """Over the devices of all processes that jax has been told of, in their order."""
        return _mesh(jax.devices(), told_memory_bytes)

    @staticmethod
    def absent(devices: Sequence[Any], memory_bytes: int) -> "Mesh":
        """Over devices that are not here: programs are compiled for them, and never run."""
        return _mesh(devices, memory_bytes)

    @property
    def size(self) -> int:
        return self.mesh.size

    @cached_property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, P())

    @cached_property
    def by_row(self) -> NamedSharding:
        return NamedSharding(self.mesh, P("data"))

    def round_up(self, rows: int) -> int:
        """The smallest multiple of the number of devices that holds `rows` rows."""
        return -(-rows // self.size) * self.size

    @property
    def several_processes(self) -> bool:
        return self.mesh.is_multi_process

    @cached_property
    def share(self) -> Share:
        """Which part of a batch this process makes: all of it where there is no other."""
        first = list(self.mesh.devices.flat).index(self.mesh.local_devices[0])
        return Share(first, len(self.mesh.local_devices), self.size)

    @property
    def steps_in_flight(self) -> int:
        """How many steps may be queued. Virtual CPU devices that outnumber the cores deadlock unless each step ends.

        So do processors of several processes, which meet in the order of their threads.
        """
        on_processors = self.mesh.local_devices[0].platform == "cpu"
        return 0 if on_processors and (self.several_processes or self.size > machine.cores()) else 2

    @property
    def memory_bytes(self) -> int:
        """Memory of one device; for a CPU, the machine's."""
        if self.told_memory_bytes is not None:
            return self.told_memory_bytes
        stats = self.mesh.local_devices[0].memory_stats()
        if stats and "bytes_limit" in stats:
            return int(stats["bytes_limit"])
        return machine.memory_bytes()


def _mesh(devices: Sequence[Any], told_memory_bytes: int | None = None) -> Mesh:
    """The axis is Auto: Explicit breaks vmap(grad) through flax (jax 0.10)."""
    return Mesh(JaxMesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,)), told_memory_bytes)


def put_batch(own_rows: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """A batch on the devices, its rows split over them; `own_rows` are those of `Mesh.share`."""
    if not mesh.several_processes:
        return jax.device_put(dict(own_rows), mesh.by_row)
    return {name: jax.make_array_from_process_local_data(mesh.by_row, array) for name, array in own_rows.items()}


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Arrays on all devices of the mesh. With several processes each has to have the same ones, on its host."""
    if not mesh.several_processes:
        return jax.device_put(tree, mesh.replicated)
    return jax.tree.map(lambda x: _put_everywhere(x, mesh.replicated), tree)


def _put_everywhere(x: Any, replicated: NamedSharding) -> jax.Array:
    """`jax.device_put` would send the array to all processes, to compare it."""
    if isinstance(x, jax.Array) and x.sharding == replicated:
        return x
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        words = _put_everywhere(jax.random.key_data(x), replicated)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    # Copies, since programs may overwrite them.
    return jax.make_array_from_callback(host.shape, replicated, lambda index: np.array(host[index]))


def key_on(seed: int, mesh: Mesh) -> jax.Array:
    """A key of all 64 bits of `seed`, on every device."""
    words = jnp.array([seed >> 32, seed & 0xFFFFFFFF], jnp.uint32)
    return put_replicated(jax.random.wrap_key_data(words, impl="threefry2x32"), mesh)
