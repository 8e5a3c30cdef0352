"""GPUs that are not here, for which XLA compiles all the same: what a program would need on them, with none at hand.

What it takes is jax's CUDA plugin and CUDA's assembler, which are packages, and no driver. The figures are those that
the compiler's authors keep of these models (github.com/openxla/xla, xla/tools/hlo_opt/gpu_specs).
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from timetrial.errors import UserError

COMPILER_OPTIONS = {"xla_gpu_enable_triton_gemm": False}
"""Without a device nothing can be tried out, and by rule XLA's own matrix products do not fit all shapes."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the compiler asks of a GPU; the rest is the same for all of them."""

    name: str
    capability: int
    """The major number of CUDA's compute capability."""
    cores: int
    """Streaming multiprocessors."""
    lanes: int
    """Float32 units of each."""
    shared_bytes: int
    """Shared memory of each."""
    block_bytes: int
    """Shared memory that one block may ask for."""
    cache_bytes: int
    memory_bytes: int
    bytes_per_second: int
    ghz: float


_A100 = Model(
    name="NVIDIA A100-SXM4-40GB", capability=8, cores=108, lanes=64, shared_bytes=167936, block_bytes=166912,
    cache_bytes=41943040, memory_bytes=42331013120, bytes_per_second=1555200000000, ghz=1.41,
)  # fmt: skip
MODELS = {
    "v100-16gb": Model(
        name="Tesla V100-SXM2-16GB", capability=7, cores=80, lanes=64, shared_bytes=98304, block_bytes=98304,
        cache_bytes=6291456, memory_bytes=16935419904, bytes_per_second=898048000000, ghz=1.53,
    ),
    "a100-40gb": _A100,
    "a100-80gb": replace(
        _A100, name="NVIDIA A100-SXM4-80GB", memory_bytes=85100068864, bytes_per_second=2039040000000
    ),
    "h100-80gb": Model(
        name="NVIDIA H100 80GB HBM3", capability=9, cores=132, lanes=128, shared_bytes=233472, block_bytes=232448,
        cache_bytes=52428800, memory_bytes=84978434048, bytes_per_second=3352320000000, ghz=1.98,
    ),
}  # fmt: skip


def absent_devices(model: Model, number: int) -> Sequence[Any]:
    """So many of them in one machine, to compile for; raises `UserError` where jax's CUDA plugin is missing."""
    if importlib.util.find_spec("jax_plugins") is None or importlib.util.find_spec("jax_plugins.xla_cuda12") is None:
        plugins = " ".join(f"jax-cuda12-{part}=={version('jaxlib')}" for part in ("plugin", "pjrt"))
        raise UserError(
            "compiling for a GPU that is not here needs jax's CUDA plugin, best in an environment of its own: "
            f"pip install --no-deps {plugins} nvidia-cuda-nvcc-cu12"
        )
    from jax.experimental import topologies

    return topologies.get_topology_desc(
        "absent", platform="cuda", target_config=_target(model), topology=f"1x1x{number}"
    ).devices


def _target(model: Model) -> str:
    """A GpuTargetConfigProto as text."""
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": model.shared_bytes,
        "threads_per_core_limit": 2048,
        "core_count": model.cores,
        "fpus_per_core": model.lanes,
        "block_dim_limit_x": 2147483647,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": model.bytes_per_second,
        "l2_cache_size": model.cache_bytes,
        "clock_rate_ghz": model.ghz,
        "device_memory_size": model.memory_bytes,
        "shared_memory_per_block_optin": model.block_bytes,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    lines = "".join(f"  {name}: {value}\n" for name, value in device.items())
    return (
        f"gpu_device_info {{\n{lines}  cuda_compute_capability {{ major: {model.capability} }}\n}}\n"
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 8 }\nruntime_version { major: 12 minor: 8 }\n'
        f'device_description_str: "{model.name}"\n'
    )
