"""Packages that only the full track's data need, so that they are optional."""

import importlib
from typing import Any

from timetrial.errors import UserError


def extra(module: str) -> Any:
    """The module of an optional package; `UserError` where it cannot be imported."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: soundfile, without the library that it wraps
        raise UserError(f"{module} is needed and cannot be imported ({error}): pip install 'timetrial[full]'") from None
