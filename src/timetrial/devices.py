"""The devices of this process as one mesh: batches are split over its axis `data`, everything else is replicated."""

from collections.abc import Mapping
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


@dataclass(frozen=True)
class Mesh:
    """A mesh of local devices named `data`."""

    mesh: JaxMesh

    @staticmethod
    def local() -> "Mesh":
        """Over all local devices. The axis is Auto: Explicit breaks vmap(grad) through flax (jax 0.10)."""
        return Mesh(JaxMesh(np.asarray(jax.local_devices()), ("data",), axis_types=(AxisType.Auto,)))

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
    def steps_in_flight(self) -> int:
        """How many steps may be queued. Virtual CPU devices that outnumber the cores deadlock unless each step ends."""
        device = self.mesh.devices.flat[0]
        return 0 if device.platform == "cpu" and self.size > machine.cores() else 2

    @property
    def memory_bytes(self) -> int:
        """Memory of one device; for a CPU, the machine's."""
        stats = self.mesh.devices.flat[0].memory_stats()
        if stats and "bytes_limit" in stats:
            return int(stats["bytes_limit"])
        return machine.memory_bytes()


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """A batch on the devices, its rows split over them."""
    return {name: jax.device_put(array, mesh.by_row) for name, array in batch.items()}


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Arrays on all devices of the mesh."""
    return jax.device_put(tree, mesh.replicated)


def key_on(seed: int, mesh: Mesh) -> jax.Array:
    """A key of all 64 bits of `seed`, on every device."""
    words = jnp.array([seed >> 32, seed & 0xFFFFFFFF], jnp.uint32)
    return put_replicated(jax.random.wrap_key_data(words, impl="threefry2x32"), mesh)
