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
}
"""Names that jax had when submissions were published, and what they are called now."""


def restored_names(source: Source) -> tuple[str, ...]:
    """The removed names of jax that the submission's files mention."""
    text = "\n".join(path.read_text(errors="replace") for path in source.files() if path.suffix == ".py")
    return tuple(name for name in _REMOVED if re.search(rf"\b{re.escape(name)}\b", text) and not _exists(name))


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
    restored = restored_names(source)
    for name in restored:
        holder, _, attribute = name.rpartition(".")
        setattr(_resolve(holder), attribute, _resolve(_REMOVED[name]))
    try:
        yield
    finally:
        for name in restored:
            holder, _, attribute = name.rpartition(".")
            delattr(_resolve(holder), attribute)
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
    holder, _, attribute = name.rpartition(".")
    return hasattr(_resolve(holder), attribute)


def _resolve(name: str) -> object:
    module, *attributes = name.split(".")
    found: object = importlib.import_module(module)
    for attribute in attributes:
        found = getattr(found, attribute)
    return found
