"""Finding, hashing, copying and importing a submission's source."""

import ast
import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from timetrial.errors import UserError
from timetrial.registry import SUBMISSION_FILE, find_submission, installed_submissions
from timetrial.syntax import parse
from timetrial.tuning import SearchSpace, check_search_space

ALGOPERF_SEARCH_SPACE = "tuning_search_space.json"
"""Beside an AlgoPerf submission, unless that tunes itself."""
SOURCE_FOLDER = "source"
"""Beside a record: the submission as it was run."""
LEFT_OUT = ("__pycache__", ".git", ".venv")
"""Folders that are no part of a submission: not hashed, not copied."""


@dataclass(frozen=True)
class Source:
    """A submission's source: its name and its `submission.py` (or whatever the single file is called)."""

    name: str
    path: Path

    @property
    def folder(self) -> Path:
        return self.path.parent

    def files(self) -> list[Path]:
        """What makes up the submission: its whole folder, or the one file when it is not called submission.py."""
        if self.path.name != SUBMISSION_FILE:
            beside = self.folder / ALGOPERF_SEARCH_SPACE
            return [self.path, beside] if self.api == "algoperf" and beside.is_file() else [self.path]
        inside = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path for path in inside if not set(LEFT_OUT) & set(path.relative_to(self.folder).parts))

    @property
    def sha256(self) -> str:
        """Over the names and bytes of all files."""
        digest = hashlib.sha256()
        for path in self.files():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{content}\n".encode())
        return digest.hexdigest()

    def copy_to(self, folder: Path) -> None:
        """A copy of the source, for another reader; raises `UserError` for a link that leaves the folder."""
        for path in self.files():
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise UserError(f"{path}: a link that leaves the submission's folder; copy what it leads to")
            target = folder / path.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    @property
    def api(self) -> Literal["timetrial", "algoperf"]:
        """What the submission is written for. Read from the text: nothing is imported."""
        try:
            body = self.parse().body
        except UserError:  # whoever imports it is told
            return "timetrial"
        bound: set[str] = set()
        for node in body:
            if isinstance(node, ast.FunctionDef):
                bound.add(node.name)
            elif isinstance(node, ast.ImportFrom):
                bound.update(alias.asname or alias.name for alias in node.names)
        return "algoperf" if {"init_optimizer_state", "update_params"} <= bound else "timetrial"

    @property
    def uses_pmap(self) -> bool:
        """Whether the file mentions `pmap` in its code."""
        nodes = ast.walk(self.parse())
        return any("pmap" in (getattr(node, "attr", ""), getattr(node, "id", "")) for node in nodes)

    @property
    def self_tuning(self) -> bool:
        """Whether the submission declares no search space. Read from the text: nothing is imported."""
        if self.api == "algoperf":
            return not (self.folder / ALGOPERF_SEARCH_SPACE).is_file()
        for node in self.parse().body:
            if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == "SEARCH_SPACE" for a in node.names):
                return False
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == "SEARCH_SPACE" for target in targets):
                    return isinstance(node.value, ast.Dict) and not node.value.keys
        return True

    def parse(self) -> ast.Module:
        """The syntax tree; `UserError` where there is none."""
        try:
            return parse(self.path.read_bytes(), self.path)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise UserError(f"{self.path}:{line}: not Python: {error}") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from None


def find_source(name_or_path: str) -> Source:
    """The submission of that name, file or folder; raises `UserError` where there is none, or it cannot be read."""
    try:
        path = find_submission(name_or_path).resolve()
        known = name_or_path in installed_submissions()
        own = path.parent.name if path.name == SUBMISSION_FILE else path.stem
        source = Source(name_or_path if known else own, path)
        for file in source.files():
            file.open("rb").close()
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return source


@dataclass(frozen=True)
class Loaded:
    """What a submission exports."""

    make: Callable[..., Any]
    search_space: SearchSpace
    """An empty mapping where the submission tunes itself."""
    module: ModuleType


def _no_make(*_: Any) -> Any:
    raise UserError("an AlgoPerf submission has no function `make`")


def load(source: Source) -> Loaded:
    """Imports the submission. Raises whatever its code raises, and `UserError` for what it fails to export.

    An AlgoPerf submission can be imported within `timetrial.algoperf.names.algoperf_names` alone.
    """
    name = f"timetrial_submission_{hashlib.sha256(str(source.path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(
        name, source.path, submodule_search_locations=[str(source.folder)]
    )  # a package, so that `from . import helper` finds the submission's own files
    if spec is None or spec.loader is None:
        raise UserError(f"{source.path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if source.api == "algoperf":
        from timetrial.algoperf.search_space import read_search_space

        space = {} if source.self_tuning else read_search_space(source.folder / ALGOPERF_SEARCH_SPACE)
        return Loaded(_no_make, space, module)
    make = getattr(module, "make", None)
    if not callable(make):
        raise UserError(f"{source.path}: no function `make(hparams, task)`; `timetrial new` shows how one looks")
    return Loaded(make, check_search_space(getattr(module, "SEARCH_SPACE", {})), module)
