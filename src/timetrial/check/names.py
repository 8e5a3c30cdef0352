"""Static rules on what the code names: what it imports, how it reaches around, what it sets. Tables, then four rules.

Modules are allowed by list, so that what nobody thought of is refused. Within the libraries that are allowed, names are
refused by list.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from timetrial.check.code import Finding, Module

_MODULES = frozenset(
    "__future__ abc cmath collections collections.abc contextlib copy dataclasses enum fractions functools itertools math "
    "numbers operator types typing typing_extensions "
    "numpy numpy.linalg numpy.random numpy.typing scipy scipy.linalg scipy.special "
    "jax jax.ad_checkpoint jax.custom_batching jax.custom_derivatives jax.dtypes jax.experimental.jet "
    "jax.experimental.sparse jax.flatten_util jax.image jax.lax jax.nn jax.nn.initializers jax.numpy jax.numpy.fft "
    "jax.numpy.linalg jax.random jax.scipy jax.scipy.linalg jax.scipy.optimize jax.scipy.signal jax.scipy.sparse.linalg "
    "jax.scipy.special jax.scipy.stats jax.sharding jax.tree jax.tree_util jax.typing "
    "flax flax.core flax.linen flax.struct flax.traverse_util "
    "timetrial timetrial.schedules timetrial.submission timetrial.tuning".split()
)
_PACKAGES = ("optax",)
"""Allowed with all their public modules."""
_ALGOPERF = (
    "absl", "algoperf", "algorithmic_efficiency", "algorithms", "chex", "jraph", "prize_qualification_baselines",
    "reference_algorithms", "submissions",
)  # fmt: skip
"""What a submission written for AlgoPerf imports as well: its API, and absolute paths to its own files."""
_TIMETRIAL = frozenset(
    "Batch Choice Feedback Hparams Integers LogUniform LossAux ParamInfo Problem Submission Task TrainState Uniform "
    "from_optax warmup_cosine Array Leaves PyTree schedules submission tuning".split()
)
"""What a submission may import from timetrial."""


class _Refused(NamedTuple):
    rule: str
    why: str
    todo: str


_ELSEWHERE = _Refused(
    "imports",
    "is nothing that a submission may use",
    "use jax, flax, optax, numpy, scipy, the standard library's mathematics, timetrial's public names and files of the "
    "submission (from .helper import f); docs/rules.md lists them",
)
_FILES = _Refused("reach", "reads or writes files", "keep what the method needs in its state or in its code")
_LIVE = _Refused("reach", "reaches beyond the submission's own arrays", "use what `problem`, `task` and `state` hold")
_EVALUATES = _Refused("reach", "runs text as code", "write the code itself")
_KERNEL = _Refused("kernels", "is a custom kernel or calls the host from a program", "write it in jax.numpy and jax.lax")
_SETTING = _Refused(
    "settings", "changes how all programs are compiled or run", "leave settings alone; pass `precision=` or `dtype=` to single operations"
)  # fmt: skip


def _table(refused: _Refused, prefix: str, names: str) -> dict[str, _Refused]:
    return {f"{prefix}.{name}" if prefix else name: refused for name in names.split()}


_REFUSED: dict[str, _Refused] = {
    **_table(
        _KERNEL,
        "jax",
        "pure_callback debug ffi extend interpreters lib experimental.io_callback experimental.host_callback "
        "experimental.pallas experimental.custom_partitioning experimental.mosaic experimental.xla_metadata "
        "experimental.custom_dce experimental.colocated_python custom_partitioning",
    ),
    **_table(_KERNEL, "", "jaxlib triton jax_triton pallas numba cffi ctypes cupy"),
    **_table(
        _SETTING,
        "jax",
        "config enable_x64 enable_custom_prng default_device default_matmul_precision default_prng_impl disable_jit "
        "numpy_dtype_promotion numpy_rank_promotion debug_nans debug_infs debug_key_reuse log_compiles transfer_guard "
        "transfer_guard_host_to_device transfer_guard_device_to_device transfer_guard_device_to_host "
        "threefry_partitionable softmax_custom_jvp legacy_prng_key set_mesh no_execution no_tracing explain_cache_misses "
        "clear_caches clear_backends make_user_context check_tracer_leaks checking_leaks experimental.enable_x64 "
        "experimental.disable_x64 experimental.compilation_cache",
    ),
    **_table(_ELSEWHERE, "jax", "experimental"),
    **_table(_SETTING, "numpy", "seterr seterrcall setbufsize set_printoptions errstate"),
    **_table(_LIVE, "jax", "live_arrays core distributed dlpack export monitoring profiler stages tools test_util cloud"),
    **_table(
        _FILES,
        "numpy",
        "load save savez savez_compressed loadtxt savetxt genfromtxt fromfile fromregex memmap lib core ctypeslib f2py "
        "testing DataSource distutils rec show_config info source",
    ),
    **_table(_FILES, "jax.numpy", "load save savez fromfile"),
    **_table(_FILES, "scipy", "io datasets"),
    **_table(_FILES, "builtins", "open input"),
    **_table(_EVALUATES, "builtins", "eval exec compile __import__ breakpoint"),
    **_table(_EVALUATES, "typing", "get_type_hints ForwardRef evaluate_forward_ref"),
    **_table(_EVALUATES, "typing_extensions", "get_type_hints evaluate_forward_ref"),
    **_table(_EVALUATES, "functools", "singledispatch singledispatchmethod"),
    **_table(_EVALUATES, "types", "CodeType FunctionType ModuleType resolve_bases new_class prepare_class"),
    **_table(_LIVE, "builtins", "globals locals vars __builtins__ __loader__ __spec__ __file__"),
    **_table(_LIVE, "operator", "attrgetter methodcaller"),
}
"""Names that are refused, with all that lies below them: the rule, and what is wrong with them."""

_OS = frozenset(
    "os _os sys _sys subprocess threading _thread multiprocessing concurrent asyncio socket ssl urllib http ctypes pathlib "
    "io _io shutil tempfile glob mmap time gc inspect importlib builtins pickle marshal linecache tokenize "
    "traceback atexit logging tracemalloc faulthandler runpy pkgutil zipfile weakref _weakref warnings jax jaxlib jnp np".split()
)
"""Modules that libraries hold as attributes: `dataclasses.sys` is sys."""
_ATTRIBUTES: dict[str, _Refused] = {
    **_table(_FILES, "", "tofile dump"),
    **_table(
        _KERNEL,
        "",
        "pure_callback io_callback pallas_call ffi_call register_ffi_target custom_partitioning host_callback "
        "custom_call emit_python_callback register_custom_call_target",
    ),
    **_table(
        _LIVE,
        "",
        "gi_frame gi_code cr_frame cr_code ag_frame ag_code tb_frame tb_next f_back f_globals f_locals f_builtins f_code "
        "func_globals mro live_arrays",
    ),
}
"""Attributes that are refused whatever they belong to."""
_DUNDERS = frozenset(
    f"__{name}__"
    for name in (
        "init post_init new call name qualname class all slots version author license len iter next getitem setitem contains "
        "enter exit eq ne lt le gt ge hash bool repr str add radd iadd sub rsub isub mul rmul imul truediv rtruediv "
        "floordiv rfloordiv mod rmod pow rpow matmul rmatmul neg pos abs invert and or xor int float index"
    ).split()
)
"""Names between double underscores that lead nowhere."""
_UNDERSCORED = frozenset(("_replace", "_asdict", "_fields", "_make"))
"""A named tuple's."""


def imports(module: Module, *, algoperf: bool) -> Iterator[Finding]:
    """Imports lead to the libraries that are allowed and to the submission's own files."""
    for node in module.nodes():
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for alias, dotted in zip(node.names, module.imported(node), strict=True):
            if alias.name == "*":
                yield Finding("fail", module.at(node), f"`{ast.unparse(node)}` hides what it imports", "import by name")
            elif _refused(dotted) is None and not _may_import(module, node, dotted, algoperf=algoperf):
                yield Finding("fail", module.at(node), f"{dotted} {_ELSEWHERE.why}", _ELSEWHERE.todo)


def _may_import(module: Module, node: ast.Import | ast.ImportFrom, dotted: str, *, algoperf: bool) -> bool:
    holder, _, name = dotted.rpartition(".")
    top = dotted.partition(".")[0]
    if not top:
        return dotted in module.siblings or (isinstance(node, ast.ImportFrom) and holder in module.siblings)
    if algoperf and top in _ALGOPERF:
        return True
    if holder == "__future__":
        return True
    if any(part.startswith("_") for part in dotted.split(".")):
        return False
    return top in _PACKAGES or dotted in _MODULES or (isinstance(node, ast.ImportFrom) and holder in _MODULES)


def names(module: Module) -> Iterator[tuple[str, Finding]]:
    """What each name in the code leads to: (rule, finding), mostly of `reach`, `kernels` and `settings`."""
    for node in module.nodes():
        for refused, shown in _refusals(module, node):
            yield refused.rule, Finding("fail", module.at(node), f"{shown} {refused.why}", refused.todo)


def _refusals(module: Module, node: ast.AST) -> Iterator[tuple[_Refused, str]]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for dotted in module.imported(node):
            if (refused := _refused(dotted)) is not None:
                yield refused, dotted
    elif isinstance(node, (ast.Name, ast.Attribute)):
        yield from _refused_name(module, node)
    elif isinstance(node, ast.Call):
        yield from _refused_call(module, node)
    elif isinstance(node, ast.MatchClass):
        yield from ((_LIVE, name) for name in node.kwd_attrs if _is_hidden(name))
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and _is_hidden(node.name):
        yield _LIVE, node.name
    elif isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
        if _calls(node.annotation):
            yield _EVALUATES, "an annotation in quotes that calls something"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "xla_" in node.value.lower():
        yield _SETTING, repr(node.value[:40])


def _refused_name(module: Module, node: ast.Name | ast.Attribute) -> Iterator[tuple[_Refused, str]]:
    name = node.id if isinstance(node, ast.Name) else node.attr
    dotted = module.resolve(node)
    if dotted is not None and (refused := _refused(dotted)) is not None:
        parent = module.resolve(node.value) if isinstance(node, ast.Attribute) else None
        if parent is None or _refused(parent) is None:  # said once for jax.config.update
            yield refused, dotted.removeprefix("builtins.")
    elif isinstance(node, ast.Attribute) and name in _ATTRIBUTES:
        yield _ATTRIBUTES[name], f".{name}"
    elif _is_hidden(name):
        yield _LIVE, name
    elif isinstance(node, ast.Attribute) and dotted is not None and name.startswith("_") and name not in _UNDERSCORED:
        if not dotted.startswith(".") and name not in _DUNDERS:
            yield _LIVE, dotted


def _refused_call(module: Module, node: ast.Call) -> Iterator[tuple[_Refused, str]]:
    called = module.resolve(node.func)
    if called in ("builtins.getattr", "builtins.hasattr"):
        name = node.args[1] if len(node.args) > 1 else None
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            yield _Refused("reach", "reads an attribute whose name is computed", "write `x.name`"), "getattr"
        elif isinstance(node.args[0], ast.expr):
            attribute = ast.Attribute(value=node.args[0], attr=name.value, ctx=ast.Load())
            yield from _refused_name(module, attribute)
    if any(keyword.arg == "compiler_options" for keyword in node.keywords):
        yield _SETTING, "compiler_options"


def values(module: Module) -> Iterator[Finding]:
    """Modules, and the functions that read and write attributes by name, are used on the spot and not handed around."""
    used = {id(node.value) for node in module.nodes() if isinstance(node, ast.Attribute)}
    used |= {id(node.func) for node in module.nodes() if isinstance(node, ast.Call)}
    for node in module.nodes():
        if not isinstance(node, (ast.Name, ast.Attribute)) or id(node) in used:
            continue
        dotted = module.resolve(node)
        if dotted in _MODULES or dotted in _PACKAGES or dotted in module.siblings:
            yield Finding(
                "fail", module.at(node), f"hands the module {dotted} around", f"write `{ast.unparse(node)}.name` where it is used"
            )  # fmt: skip
        elif dotted in ("builtins.getattr", "builtins.setattr", "builtins.delattr"):
            name = dotted.removeprefix("builtins.")
            yield Finding("fail", module.at(node), f"hands {name} around", "write `x.name`")


def patching(module: Module) -> Iterator[Finding]:
    """Attributes are set on `self` alone, and items of what is imported are not set at all."""
    todo = "build a new value instead: state._replace(…), dataclasses.replace(…), a function of your own"
    for node in module.nodes():
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield Finding("fail", module.at(node), f"sets `{ast.unparse(node)}`", todo)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            if (dotted := module.resolve(node.value)) is not None and not dotted.startswith("builtins."):
                yield Finding("fail", module.at(node), f"sets an item of {dotted}, which is imported", todo)
        elif isinstance(node, ast.Call) and module.resolve(node.func) in ("builtins.setattr", "builtins.delattr"):
            yield Finding("fail", module.at(node), f"calls `{ast.unparse(node)[:60]}`", todo)


def _refused(dotted: str) -> _Refused | None:
    """Why a dotted name is refused: by the nearest entry above it, or because a library's inside lies on the way."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        above = ".".join(parts[:end])
        if above in _MODULES:
            break
        if above in _REFUSED:
            return _REFUSED[above]
    if parts[0] == "timetrial" and not _TIMETRIAL.issuperset(parts[1:3]):
        return _ELSEWHERE
    return _LIVE if parts[0] not in ("", "builtins") and not _OS.isdisjoint(parts[1:]) else None


def _is_hidden(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and len(name) > 4 and name not in _DUNDERS


def _calls(annotation: ast.expr) -> bool:
    """Whether text inside an annotation would call something, if anybody evaluated it."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                inside = ast.parse(node.value, mode="eval")
            except (SyntaxError, ValueError):
                continue  # nobody could evaluate it
            if any(isinstance(part, ast.Call) for part in ast.walk(inside)):
                return True
    return False
