"""`timetrial submit`: the official rehearsal, and the bundle to hand in."""

import argparse
import tempfile
from pathlib import Path

from timetrial.commands import validate
from timetrial.errors import UserError
from timetrial.loading import find_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    validate.add_arguments(parser)
    parser.add_argument("--out", "-o", type=Path, metavar="FILE", help="the bundle (default: NAME.zip)")


def run(args: argparse.Namespace) -> int:
    """Rehearses, and writes the bundle where all is well."""
    bundle = args.out or Path(f"{find_source(args.path).name}.zip")
    if bundle.exists():
        raise UserError(f"{bundle} exists; name another file with --out")
    if not bundle.parent.is_dir():
        raise UserError(f"{bundle.parent} is no folder; name a file in one with --out")
    try:
        tempfile.TemporaryFile(dir=bundle.parent).close()
    except OSError as error:
        why = f"cannot write to {bundle.parent}: {error.strerror}"
        raise UserError(f"{why}; name a file elsewhere with --out") from None
    with tempfile.TemporaryDirectory(prefix="timetrial-rehearsal-") as scratch:
        return validate.rehearsed(args, Path(scratch) / "rehearsal", bundle=bundle)
