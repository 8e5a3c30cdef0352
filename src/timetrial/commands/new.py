"""`timetrial new`: a submission to start from, alone or as a package that can be installed."""

import argparse
import re
from pathlib import Path

from timetrial.errors import UserError

_TEMPLATES = Path(__file__).parents[1] / "templates"
_PLACE = "new_submission"
"""What the templates call the submission."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("submission",), help="what to make")
    parser.add_argument("name", metavar="NAME", help="its name, and that of its folder")
    parser.add_argument("--package", action="store_true", help="a project that pip installs, found by its entry point")
    parser.add_argument(
        "--into", type=Path, default=Path(), metavar="DIR", help="where the folder goes (default: here)"
    )


def run(args: argparse.Namespace) -> int:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        raise UserError(f"{args.name!r} is no name for a submission; use small letters, digits and _, a letter first")
    folder: Path = args.into / args.name
    if folder.exists():
        raise UserError(f"{folder} exists; choose another name, or another folder with --into")
    try:
        if args.package:
            _copy(_TEMPLATES / "package", folder, args.name)
            _copy(_TEMPLATES / "submission", folder / "src" / args.name, args.name)
        else:
            _copy(_TEMPLATES / "submission", folder, args.name)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    inside = folder / "src" / args.name if args.package else folder
    print(f"{folder} is made. Write your algorithm in {inside}/submission.py, then:")
    print(f"  timetrial check {inside if inside.is_absolute() else f'./{inside}'}")
    if args.package:
        print(f"  pip install -e {folder}   # from then on it is found by its name, {args.name}")
    return 0


def _copy(template: Path, folder: Path, name: str) -> None:
    for path in sorted(template.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            target = folder / path.relative_to(template).with_name(path.name.removesuffix(".in"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text().replace(_PLACE, name))
