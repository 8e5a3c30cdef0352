"""The names that an AlgoPerf submission imports, for as long as it is loaded.

AlgoPerf's own modules stand in `sys.modules` under their names; absolute paths into AlgoPerf's repositories, which
published submissions use for their own helpers, lead to the submission's folder; and names that jax has removed since
are put back. All of it is taken away again: nothing is installed, and no other submission sees any of it. Within the
process (a trial has one of its own) it holds for every module, since a submission's libraries may need it too.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp

from timetrial.loading import Source

_PACKAGES = ("algoperf", "algorithmic_efficiency")
_MODULES = ("spec", "jax_sharding_utils")
_ROOTS = ("submissions", "reference_algorithms", "prize_qualification_baselines", "algorithms")
"""Top folders of AlgoPerf's repositories, as published submissions name them."""
_REMOVED = {
    **{
        f"jax.{name}": f"jax.tree_util.{name}"
        for name in (
            "tree_all",
            "tree_flatten",
            "tree_leaves",
            "tree_map",
            "tree_reduce",
            "tree_structure",
            "tree_transpose",
            "tree_unflatten",
        )
    },
    "jax.random.KeyArray": "jax.Array",
    "jax.numpy.clip": "timetrial.algoperf.names.clip",
}
"""Names that jax had when submissions were published, and what stands for them now."""
_MENTIONED = {"jax.numpy.clip": r"\bclip\([^#\n]*\ba_m(in|ax)\s*="}
"""How a name is mentioned, where it is not simply written."""
_jnp_clip = jnp.clip


def clip(
    arr: Any = None, /, min: Any = None, max: Any = None, *, a: Any = None, a_min: Any = None, a_max: Any = None
) -> Any:
    """`jax.numpy.clip` with the arguments that it had: `a`, `a_min` and `a_max`."""
    return _jnp_clip(a if arr is None else arr, a_min if min is None else min, a_max if max is None else max)


def restored_names(source: Source) -> tuple[str, ...]:
    """The names that the submission's files mention and jax has removed, or whose arguments it has renamed."""
    text = "\n".join(path.read_text(errors="replace") for path in source.files() if path.suffix == ".py")
    mentioned = [n for n in _REMOVED if re.search(_MENTIONED.get(n, rf"\b{re.escape(n)}\b"), text)]
    return tuple(name for name in mentioned if name in _MENTIONED or not _exists(name))


@contextmanager
def algoperf_names(source: Source) -> Generator[None]:
    """Within it the submission can be imported and run."""
    before = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in before:
        del sys.modules[name]
    others = set(sys.modules)
    for package in _PACKAGES:
        module = sys.modules[package] = ModuleType(package, "AlgoPerf's API, as timetrial offers it.")
        for name in _MODULES:
            part = importlib.import_module(f"timetrial.algoperf.{name}")
            sys.modules[f"{package}.{name}"] = part
            setattr(module, name, part)
    finder = _OwnFolder(source.folder)
    sys.meta_path.insert(0, finder)
    sys.path.append(str(source.folder))
    jax_before = [(*_place(name), _REMOVED[name]) for name in restored_names(source)]
    for holder, attribute, _, now in jax_before:
        setattr(holder, attribute, _resolve(now))
    try:
        yield
    finally:
        for holder, attribute, was, _ in jax_before:
            if was is None:
                delattr(holder, attribute)
            else:
                setattr(holder, attribute, was)
        sys.path.remove(str(source.folder))
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        for name in set(sys.modules) - others:
            if _lies_in(sys.modules[name], source.folder):
                del sys.modules[name]
        sys.modules.update(before)


class _OwnFolder(MetaPathFinder, Loader):
    """Finds `submissions.a.b.helper` in the submission's folder: by the longest tail of the path that is a file there.

    What leads there is an empty package.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        parts = fullname.split(".")
        if parts[0] not in _ROOTS:
            return None
        for i in range(1, len(parts)):
            place = self._folder.joinpath(*parts[i:])
            if place.with_suffix(".py").is_file():
                return importlib.util.spec_from_file_location(fullname, place.with_suffix(".py"))
            if (place / "__init__.py").is_file():
                return importlib.util.spec_from_file_location(
                    fullname, place / "__init__.py", submodule_search_locations=[str(place)]
                )
        spec = ModuleSpec(fullname, self, is_package=True)
        spec.submodule_search_locations = []
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """An empty package has nothing to execute."""


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in (*_PACKAGES, *_ROOTS)


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).is_relative_to(folder)


def _exists(name: str) -> bool:
    return _place(name)[2] is not None


def _place(name: str) -> tuple[object, str, object | None]:
    """What holds a name, the name there, and what stands there now."""
    holder, _, attribute = name.rpartition(".")
    return _resolve(holder), attribute, getattr(_resolve(holder), attribute, None)


def _resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    if not module or name in sys.modules:
        return importlib.import_module(name)
    return getattr(_resolve(module), attribute)
