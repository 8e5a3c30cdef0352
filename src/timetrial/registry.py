"""Where workloads and submissions are found, by name. Listing imports none of them, so it never pays for jax."""

import ast
import importlib.util
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.errors import UserError, unknown
from timetrial.evidence import derived_targets, evidence_path
from timetrial.syntax import parse

if TYPE_CHECKING:
    from timetrial.workload import Workload

ENTRY_POINTS = "timetrial.submissions"
"""The entry-point group by which an installed package offers submissions: names to modules or packages."""
SUBMISSION_FILE = "submission.py"


def shipped(kind: str) -> Path:
    """The folder of the `workloads` or `submissions` that come with timetrial: the checkout's, or the wheel's."""
    package = Path(__file__).parent
    checkout = package.parents[1]
    in_checkout = package.parent.name == "src" and (checkout / "pyproject.toml").is_file()
    return (checkout if in_checkout else package) / kind


def workload_names(track: str | None = None) -> list[str]:
    """The base workloads, of one track or of all. Their variants are known to their modules alone."""
    names = sorted(path.parent.name for path in shipped("workloads").glob("*/__init__.py"))
    return [name for name in names if track in (None, _track_of(name))]


def _track_of(base: str) -> str:
    """What the top level of a base workload's module assigns to TRACK, as its source tells; else the mini track."""
    path = shipped("workloads") / base / "__init__.py"
    for node in parse(path.read_bytes(), path).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="TRACK")], value=ast.Constant(value=str(track))):
                return track
            case _:
                pass
    return "mini"


def base_of(name: str) -> str:
    """The base workload, a folder's name, of a workload or variant; `UserError` where none can be meant.

    A variant's name begins with its base's, and an underscore (a fixed one) or a plus (any composition); what is behind
    an @ says on which data.
    """
    plain = name.partition("@")[0]
    bases = [base for base in workload_names() if plain == base or plain.startswith((f"{base}_", f"{base}+"))]
    if not bases:
        raise unknown("workload", name, workload_names(), "`timetrial list` shows all.")
    return max(bases, key=len)


def load_workload(name: str) -> "Workload":
    """The workload or variant of that name, with the targets that its evidence derives. Imports jax."""
    from timetrial import variants

    base = base_of(name)
    workload = variants.build(base, name)
    if workload.name != name:
        raise UserError(f"workload folder {name!r} holds a workload named {workload.name!r}; give both the same name")
    if workload.track != (track := _track_of(base)):
        raise UserError(f"workload {name!r} is of the {workload.track} track, but the source of {base!r} says {track}")
    target, test_target = derived_targets(evidence_path(shipped("workloads") / base, name))
    return workload if target is None else replace(workload, target=target, test_target=test_target)


def all_workload_names() -> list[str]:
    """Every base workload, each followed by its fixed variants. Imports jax."""
    from timetrial import variants

    return [name for base in workload_names() for name in (base, *variants.fixed(base))]


def submission_folders() -> dict[str, Path]:
    """The submissions that come with timetrial, by name."""
    return {path.parent.name: path.parent for path in sorted(shipped("submissions").glob(f"*/{SUBMISSION_FILE}"))}


def installed_submissions() -> dict[str, str]:
    """The submissions that installed packages offer: names to modules, none of them imported."""
    return {point.name: point.module for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name)}


def submission_names() -> list[str]:
    return sorted({*submission_folders(), *installed_submissions()})


def find_submission(name_or_path: str) -> Path:
    """The submission.py of a submission's name, or of a file or folder.

    A name wins over a file or folder of the same name (write `./name` for that one), and a submission that comes with
    timetrial wins over an installed one.
    """
    if name_or_path in (folders := submission_folders()):
        return folders[name_or_path] / SUBMISSION_FILE
    if name_or_path in (installed := installed_submissions()):
        return _module_file(name_or_path, installed[name_or_path])
    path = Path(name_or_path)
    if path.is_dir():
        if not (path / SUBMISSION_FILE).is_file():
            raise UserError(f"no {SUBMISSION_FILE} in {path}; `timetrial new submission NAME` makes a folder with one")
        return path / SUBMISSION_FILE
    if path.is_file() and path.suffix == ".py":
        return path
    hint = "Give a name (`timetrial list` shows all), a folder with a submission.py, or a Python file."
    raise unknown("submission", name_or_path, submission_names(), hint)


def _module_file(name: str, module: str) -> Path:
    """The file of a module, or the submission.py in a package's folder, found without importing either."""
    spec = _find_spec(module)
    if spec is not None and spec.submodule_search_locations:
        file = Path(next(iter(spec.submodule_search_locations))) / SUBMISSION_FILE
    else:
        file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    if file is None or not file.is_file():
        raise UserError(
            f"submission {name!r} is installed as {module!r}, which is neither a module nor a package with a "
            f"{SUBMISSION_FILE}; reinstall the package that offers it, or mend its entry point"
        )
    return file


def _find_spec(module: str) -> ModuleSpec | None:
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    return spec
