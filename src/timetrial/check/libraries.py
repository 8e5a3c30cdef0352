"""What a submission's code may name: the libraries that it may use, and what of them it may not.

Modules are allowed by list, so that what nobody thought of is refused. Within the modules that are allowed, names are
refused by list.
"""

from typing import NamedTuple

from timetrial.check.code import words

MODULES = words("""
    __future__ abc cmath collections collections.abc contextlib copy dataclasses enum fractions functools itertools math
    numbers operator types typing typing_extensions
    numpy numpy.linalg numpy.random numpy.typing scipy scipy.linalg scipy.special
    jax jax.ad_checkpoint jax.custom_batching jax.custom_derivatives jax.dtypes jax.experimental.jet
    jax.experimental.sparse jax.flatten_util jax.image jax.lax jax.nn jax.nn.initializers jax.numpy jax.numpy.fft
    jax.numpy.linalg jax.random jax.scipy jax.scipy.linalg jax.scipy.optimize jax.scipy.signal
    jax.scipy.sparse.linalg jax.scipy.special jax.scipy.stats jax.sharding jax.tree jax.tree_util jax.typing
    flax flax.core flax.linen flax.struct flax.traverse_util
    timetrial timetrial.schedules timetrial.submission timetrial.tuning
""")
PACKAGES = ("optax",)
"""Allowed with all their public modules."""
ALGOPERF = words("""
    absl algoperf algorithmic_efficiency algorithms chex jraph prize_qualification_baselines reference_algorithms
    submissions
""")
"""What a submission written for AlgoPerf imports as well: its API, and absolute paths to its own files."""
_TIMETRIAL = words("""
    Batch Choice Feedback Hparams Integers LogUniform LossAux ParamInfo Problem Submission Task TrainState Uniform
    from_optax warmup_cosine Array Leaves PyTree schedules submission tuning
""")
"""What a submission may take from timetrial."""


class Refusal(NamedTuple):
    """Why a name is refused."""

    rule: str
    why: str
    """Follows the name."""
    todo: str


ELSEWHERE = Refusal(
    "imports",
    "is nothing that a submission may use",
    "use jax, flax, optax, numpy, scipy, the standard library's mathematics, timetrial's public names and files of the "
    "submission (from .helper import f); docs/rules.md lists them",
)
FILES = Refusal("reach", "reads or writes files", "keep what the method needs in its state or in its code")
BEYOND = Refusal("reach", "reaches beyond the submission's own arrays", "use what `problem`, `task` and `state` hold")
EVALUATES = Refusal("reach", "runs text as code", "write the code itself")
KERNEL = Refusal("kernels", "is a custom kernel or calls the host from a program", "write it in jax.numpy, jax.lax")
SETTING = Refusal(
    "settings",
    "changes how all programs are compiled or run",
    "leave settings alone; pass `precision=` or `dtype=` to single operations",
)


def _table(refusal: Refusal, prefix: str, names: str) -> dict[str, Refusal]:
    return {prefix + name: refusal for name in words(names)}


_REFUSED: dict[str, Refusal] = {
    **_table(KERNEL, "jax.", """
        pure_callback debug ffi extend interpreters lib experimental.io_callback experimental.host_callback
        experimental.pallas experimental.custom_partitioning experimental.mosaic experimental.xla_metadata
        experimental.custom_dce experimental.colocated_python custom_partitioning
    """),
    **_table(KERNEL, "", "jaxlib triton jax_triton pallas numba cffi ctypes cupy"),
    **_table(SETTING, "jax.", """
        config enable_x64 enable_custom_prng default_device default_matmul_precision default_prng_impl disable_jit
        numpy_dtype_promotion numpy_rank_promotion debug_nans debug_infs debug_key_reuse log_compiles transfer_guard
        transfer_guard_host_to_device transfer_guard_device_to_device transfer_guard_device_to_host
        threefry_partitionable softmax_custom_jvp legacy_prng_key set_mesh no_execution no_tracing
        explain_cache_misses clear_caches clear_backends make_user_context check_tracer_leaks checking_leaks
        experimental.enable_x64 experimental.disable_x64 experimental.compilation_cache
    """),
    **_table(SETTING, "numpy.", "seterr seterrcall setbufsize set_printoptions errstate"),
    **_table(BEYOND, "jax.", """
        live_arrays core distributed dlpack export monitoring profiler stages tools test_util cloud
    """),
    **_table(ELSEWHERE, "jax.", "experimental"),
    **_table(FILES, "numpy.", """
        load save savez savez_compressed loadtxt savetxt genfromtxt fromfile fromregex memmap lib core ctypeslib f2py
        testing DataSource distutils rec show_config info source
    """),
    **_table(FILES, "jax.numpy.", "load save savez fromfile"),
    **_table(FILES, "scipy.", "io datasets"),
    **_table(FILES, "builtins.", "open input"),
    **_table(EVALUATES, "builtins.", "eval exec compile __import__ breakpoint"),
    **_table(EVALUATES, "typing.", "get_type_hints ForwardRef evaluate_forward_ref"),
    **_table(EVALUATES, "typing_extensions.", "get_type_hints evaluate_forward_ref"),
    **_table(EVALUATES, "functools.", "singledispatch singledispatchmethod"),
    **_table(EVALUATES, "types.", "CodeType FunctionType ModuleType resolve_bases new_class prepare_class"),
    **_table(BEYOND, "builtins.", "globals locals vars"),
    **_table(BEYOND, "operator.", "attrgetter methodcaller"),
}  # fmt: skip
"""Names that are refused, with all that lies below them."""
_HELD = words("""
    os _os sys _sys subprocess threading _thread multiprocessing concurrent asyncio socket ssl urllib http ctypes
    pathlib io _io shutil tempfile glob mmap time gc inspect importlib builtins pickle marshal linecache tokenize
    traceback atexit logging tracemalloc faulthandler runpy pkgutil zipfile weakref _weakref warnings jax jaxlib jnp np
""")
"""Modules that libraries hold as attributes: `dataclasses.sys` is sys."""
ATTRIBUTES: dict[str, Refusal] = {
    **_table(FILES, "", "tofile dump"),
    **_table(KERNEL, "", """
        pure_callback io_callback pallas_call ffi_call register_ffi_target custom_partitioning host_callback
        custom_call emit_python_callback register_custom_call_target ctypes
    """),
    **_table(BEYOND, "", """
        gi_frame gi_code cr_frame cr_code ag_frame ag_code tb_frame tb_next f_back f_globals f_locals f_builtins
        f_code func_globals mro live_arrays
    """),
}  # fmt: skip
"""Attributes that are refused whatever they belong to."""
DUNDERS = frozenset(f"__{name}__" for name in words("""
    init post_init new call name qualname class all slots version author license len iter next getitem setitem
    contains enter exit eq ne lt le gt ge hash bool repr str add radd iadd sub rsub isub mul rmul imul truediv rtruediv
    floordiv rfloordiv mod rmod pow rpow matmul rmatmul neg pos abs invert and or xor int float index
"""))  # fmt: skip
"""Names between double underscores that lead nowhere."""


def refusal(dotted: str) -> Refusal | None:
    """Why a dotted name is refused: by the nearest entry above it, or because a library's inside lies on the way."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        above = ".".join(parts[:end])
        if above in MODULES:
            break
        if above in _REFUSED:
            return _REFUSED[above]
    if parts[0] == "timetrial" and not _TIMETRIAL.issuperset(parts[1:3]):
        return ELSEWHERE
    return BEYOND if parts[0] not in ("", "absl", "builtins") and not _HELD.isdisjoint(parts[1:]) else None


def is_hidden(name: str) -> bool:
    """Whether a name between double underscores leads into Python's own workings."""
    return name.startswith("__") and name.endswith("__") and len(name) > 4 and name not in DUNDERS
