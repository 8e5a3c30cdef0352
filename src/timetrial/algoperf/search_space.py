"""AlgoPerf's tuning_search_space.json as a search space."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from timetrial.errors import UserError
from timetrial.tuning import Choice, Distribution, LogUniform, SearchSpace, Uniform, check_search_space


def read_search_space(path: Path) -> SearchSpace:
    """The search space in `path`: a list of points, or ranges and choices by name. `UserError` says what is wrong."""
    try:
        data: Any = json.loads(path.read_bytes())
        space = data if isinstance(data, list) else {name: _distribution(of) for name, of in data.items()}
        return check_search_space(space)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise UserError(f'{path}: {error} is missing; give "feasible_points", or "min", "max" and "scaling"') from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a search space of AlgoPerf: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _distribution(of: Any) -> Distribution:
    described = cast(Mapping[str, Any], of)
    if "feasible_points" in described:
        return Choice(list(described["feasible_points"]))
    low, high, scaling = described["min"], described["max"], described["scaling"]
    if scaling not in ("linear", "log"):
        raise ValueError(f'"scaling" must be "linear" or "log", not {scaling!r}')
    return LogUniform(low, high) if scaling == "log" else Uniform(low, high)
