"""What a submission imports as `algoperf.jax_sharding_utils`: shardings over all devices, along one axis `batch`."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def _over_all_devices(spec: P) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(jax.devices()), ("batch",), axis_types=(AxisType.Auto,)), spec)


def get_replicate_sharding() -> NamedSharding:
    """The same data on every device."""
    return _over_all_devices(P())


def get_batch_dim_sharding() -> NamedSharding:
    """The first axis split over the devices."""
    return _over_all_devices(P("batch"))


def shard_along_batch_dim(x: Any) -> Any:
    """The arrays of a tree with their first axis split over the devices."""
    return jax.device_put(x, get_batch_dim_sharding())


def replicate(x: Any) -> Any:
    """The arrays of a tree on every device."""
    return jax.device_put(x, get_replicate_sharding())


def display_shard_info(x: jax.Array) -> None:
    """Prints where the parts of an array lie."""
    for shard in x.addressable_shards:
        print(f"device {shard.device}: index {shard.index}, replica {shard.replica_id}")
