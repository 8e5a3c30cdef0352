"""Static rules on a submission's folder: what files it holds, and what its submission.toml says."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timetrial.check.code import Finding, words
from timetrial.loading import ALGOPERF_SEARCH_SPACE, LEFT_OUT, Source
from timetrial.registry import SUBMISSION_FILE

MANIFEST = "submission.toml"
"""Beside submission.py: `authors`, `license` (an SPDX identifier or expression) and `description`."""
PLACEHOLDER_AUTHOR = "Your Name"
"""What `timetrial new` writes for the author."""
LARGEST_FILE, LARGEST_FOLDER = 200_000, 1_000_000
"""Bytes."""
_SUFFIXES = frozenset((".py", ".md", ".toml", ".txt"))
_NAMES = words("LICENSE LICENCE COPYING NOTICE AUTHORS CITATION.cff .gitignore") | {ALGOPERF_SEARCH_SPACE}
_KEYS = ("authors", "license", "description")
_SPDX = words("""
    0BSD AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 CC-BY-4.0 EPL-2.0
    GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later ISC LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only
    LGPL-3.0-or-later MIT MIT-0 MPL-2.0 Unlicense Zlib
""")
"""The identifiers that are known; others are warned of."""


def files(source: Source) -> Iterator[Finding]:
    """The folder holds text that people can read, little of it, and leads nowhere else."""
    total = 0
    for path in _paths(source):
        where = path.relative_to(source.folder).as_posix()
        if path.is_symlink():
            if not path.resolve().is_relative_to(source.folder.resolve()):
                yield Finding("fail", where, "a link that leaves the folder", "copy what it leads to")
                continue
            if path.is_dir():
                continue
        if not path.is_file():
            yield Finding("fail", where, "neither a file nor a folder", "remove it")
            continue
        size = path.stat().st_size
        total += size
        if path.suffix not in _SUFFIXES and path.name not in _NAMES:
            todo = f"remove it; a submission is {', '.join(sorted(_SUFFIXES))} and a LICENSE"
            yield Finding("fail", where, "a file that is neither code nor text", todo)
        elif size > LARGEST_FILE:
            yield Finding("fail", where, f"{size:,} bytes, more than {LARGEST_FILE:,}", "split it, or leave it out")
        elif (line := _binary_line(path)) is not None:
            yield Finding("fail", f"{where}:{line}", "is not text in UTF-8", "remove it, or save it as UTF-8")
    if total > LARGEST_FOLDER:
        yield Finding(
            "fail", ".", f"{total:,} bytes in all, more than {LARGEST_FOLDER:,}", "leave out what is not needed"
        )


def manifest(source: Source) -> Iterator[Finding]:
    """`submission.toml` says who wrote the submission, under which licence, and what it is; README.md explains it."""
    if source.path.name != SUBMISSION_FILE:
        todo = f"to hand it in, make it a folder: {SUBMISSION_FILE}, {MANIFEST}, README.md"
        yield Finding("warn", source.path.name, "a single file says neither author nor licence", todo)
        return
    readme = source.folder / "README.md"
    if not readme.is_file() or not readme.read_bytes().strip():
        yield Finding(
            "fail", "README.md", "is missing", "say what the algorithm does, its paper, and why this search space"
        )
    path = source.folder / MANIFEST
    example = 'authors = ["…"], license = "Apache-2.0", description = "…"; docs/submissions.md shows one'
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        yield Finding("fail", MANIFEST, "is missing", f"write one: {example}")
        return
    except (OSError, ValueError) as error:
        yield Finding("fail", MANIFEST, f"cannot be read: {error}", f"write it so: {example}")
        return
    for key, wrong in _wrong_values(said):
        yield Finding("fail", MANIFEST, f"`{key}` {wrong}", f"write it so: {example}")
    if unknown := sorted(set(said) - set(_KEYS)):
        yield Finding("warn", MANIFEST, f"unknown keys: {', '.join(unknown)}", f"the keys are {', '.join(_KEYS)}")
    if isinstance(licence := said.get("license"), str) and (strange := _unknown_licences(licence)):
        todo = "use SPDX identifiers (spdx.org/licenses)"
        yield Finding("warn", MANIFEST, f"`license`: {', '.join(strange)} is not known here", todo)
    if said.get("authors") == [PLACEHOLDER_AUTHOR]:
        yield Finding("warn", MANIFEST, f"`authors` is still {PLACEHOLDER_AUTHOR!r}", "put your name there")


def _paths(source: Source) -> Iterator[Path]:
    """All that belongs to the submission, links not followed."""
    if source.path.name != SUBMISSION_FILE:
        yield from source.files()
        return
    for folder, folders, names in os.walk(source.folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        yield from (Path(folder, name) for name in folders if Path(folder, name).is_symlink())
        yield from (Path(folder, name) for name in sorted(names))


def _binary_line(path: Path) -> int | None:
    """The first line that is not text; None for a text."""
    content = path.read_bytes()
    try:
        end = content.decode("utf-8").find("\0")
    except UnicodeDecodeError as error:
        end = error.start
    return None if end < 0 else content.count(b"\n", 0, end) + 1


def _wrong_values(said: dict[str, Any]) -> Iterator[tuple[str, str]]:
    authors = said.get("authors")
    if not (isinstance(authors, list) and authors and all(isinstance(name, str) and name.strip() for name in authors)):
        yield "authors", "must be a list of names"
    for key in _KEYS[1:]:
        if not (isinstance(value := said.get(key), str) and value.strip()):
            yield key, "must be a text"


def _unknown_licences(expression: str) -> list[str]:
    """The identifiers of an SPDX expression that are not known here."""
    words = re.sub(r"[()]", " ", expression).split()
    return [word for word in words if word not in ("AND", "OR", "WITH") and word not in _SPDX]
