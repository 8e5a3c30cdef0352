"""What a ruleset costs at most, before anything is started: every trial spends its whole budget."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timetrial.errors import UserError
from timetrial.ruleset import Ruleset


def cost(
    rules: Ruleset,
    seconds_per_unit: Mapping[str, float] = {},
    *,
    submissions: int = 1,
    devices: int = 1,
    held_out: bool = False,
) -> list[dict[str, Any]]:
    """A row for each board and workload, with sums: studies x trials x budget, nothing reached early.

    `hours` are those of `submissions` submissions on one machine, evaluation and checkpoints aside; `device_hours`
    those of its devices. Both are None where the ruleset charges steps or examples and `seconds_per_unit` does not say,
    by workload, how long one takes; a variant that is not there takes as long as its base. `held_out` adds a variant of
    each base workload that has none in the ruleset, as `timetrial run --held-out` does.
    """

    def hours(name: str, charge: float) -> float | None:
        base = rules.workloads[name].variant_of or name
        unit = 1.0 if rules.clock == "seconds" else seconds_per_unit.get(name, seconds_per_unit.get(base))
        return None if unit is None else charge * unit / 3600

    rows: list[dict[str, Any]] = []
    for board, tuning in (("external", rules.external), ("self-tuning", rules.self_tuning)):
        if tuning is None:
            continue
        trials = submissions * tuning.studies * tuning.trials
        mine: list[dict[str, Any]] = []
        for name, rule in rules.workloads.items():
            budget = rules.budget(name, self_tuning=board == "self-tuning")
            wall = hours(name, trials * budget)
            mine.append(
                {"board": board, "workload": name, "held_out": rule.variant_of is not None, "trials": trials}
                | {"budget": budget, "clock": rules.clock, "charge": trials * budget, "hours": wall}
                | {"device_hours": None if wall is None else wall * devices}
            )
            if held_out and rule.variant_of is None and not rules.variants(name):
                mine.append(mine[-1] | {"workload": f"a variant of {name}", "held_out": True})
        rows += mine
        for what, summed in (
            ("all bases", [row for row in mine if not row["held_out"]]),
            ("all held out", [row for row in mine if row["held_out"]]),
            ("all", mine),
        ):
            if summed and (what == "all" or len(summed) < len(mine)):
                rows.append(_sum(what, summed))
    return rows


def _sum(what: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    def total(key: str) -> Any:
        values = [row[key] for row in rows]
        return None if None in values else sum(values)

    summed = {key: total(key) for key in ("trials", "charge", "hours", "device_hours")}
    return rows[0] | {"workload": what, "held_out": None, "budget": None} | summed


def read_paces(path: Path) -> dict[str, float]:
    """Seconds a step by workload, as `timetrial doctor --cost RULESET --measure --format json` wrote them."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["seconds_per_step"]
        return {str(name): float(seconds) for name, seconds in found.items()}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f'{path} must hold {{"seconds_per_step": {{WORKLOAD: SECONDS}}}}, '
            "as `timetrial doctor --cost RULESET --measure --format json` prints it"
        ) from None


def measured_paces(rules: Ruleset) -> dict[str, float]:
    """Seconds a step of AdamW at the default batch size on this machine, of every base workload. Imports jax."""
    from timetrial.check.pace import seconds_a_step
    from timetrial.compilation import cache_folder, use_cache
    from timetrial.registry import load_workload

    use_cache(cache_folder())
    return {name: seconds_a_step(load_workload(name)) for name in rules.base_workloads}


def per_unit(rules: Ruleset, seconds_per_step: Mapping[str, float]) -> dict[str, float]:
    """Seconds that a unit of the ruleset's clock takes, by workload. Imports jax where that is an example."""
    from timetrial.registry import load_workload

    known = {name: seconds for name, seconds in seconds_per_step.items() if name in rules.workloads}
    if rules.clock != "examples":
        return known
    return {name: seconds / load_workload(name).default_batch_size for name, seconds in known.items()}
