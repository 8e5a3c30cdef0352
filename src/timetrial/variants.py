"""Variants of a workload: the same data, loss and metric on another model, so that what was tuned to the base shows.

A workload's module says which fields of its model may take which values (`AXES`), and makes a workload of a model
(`build`). A variant is a composition over those axes. Two are fixed and have names of their own (`VARIANTS`); any other
is named by what it changes: `lobes+activation=tanh+width=24`. What ends in `@twin` is for trying the harness where the
data are not: `ogbg@twin`.
"""

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from timetrial.errors import UserError, unknown

if TYPE_CHECKING:
    from timetrial.workload import Workload

TWIN = "twin"
_TWIN_SIZES: Mapping[str, int] = {
    "default_batch_size": 4,
    "max_batch_size": 16,
    "eval_batch_size": 16,
    "train_eval_rows": 16,
}
Changes = Mapping[str, Any]
"""Names of axes to other values than the base's."""


def fixed(base: str) -> Mapping[str, Changes]:
    """The fixed variants of a base workload, by name. Imports jax."""
    return getattr(_module(base), "VARIANTS", {})


def axes(base: str) -> Mapping[str, tuple[Any, ...]]:
    """The axes of a base workload: what may be changed, and to what; the base's own value comes first. Imports jax."""
    return getattr(_module(base), "AXES", {})


def composed_name(base: str, changes: Changes) -> str:
    """The name that says what a variant changes, axes in their own order."""
    return "+".join([base, *(f"{axis}={changes[axis]}" for axis in axes(base) if axis in changes)])


def build(base: str, name: str) -> "Workload":
    """The workload of that name: the base's own, a fixed variant, or a composition. Imports jax.

    With `@twin` behind it, on the synthetic twin of the data set: tried with it, and another workload. Raises
    `UserError` for a name that says none of these.
    """
    module = _module(base)
    plain, at, data = name.partition("@")
    changes = {} if plain == base else _changes(base, plain)
    if at:
        if data != TWIN:
            raise UserError(f"workload {name!r}: only {plain}@{TWIN} is known, on a synthetic twin of the data")
        workload: Workload = module.build(replace(module.MODEL, **changes), module.WORKLOAD.data.twin())
        return replace(workload, name=name, **_TWIN_SIZES)
    if plain == base:
        return module.WORKLOAD
    return replace(module.build(replace(module.MODEL, **changes)), name=name, variant_of=base)


def drawn(base: str, seed: str, count: int = 1) -> list[str]:
    """Names of `count` held-out variants, in the order in which they are drawn.

    Each is uniform over all compositions but the base, the fixed variants and those drawn before it, by SHA-256 of
    (seed, base, number), so that whoever knows the seed draws the same ones.
    """
    choices = axes(base)
    taken = [dict(changes) for changes in fixed(base).values()] + [{}]
    names: list[str] = []
    number = 0
    while len(names) < count:
        if len(taken) >= _compositions(choices):
            raise UserError(f"workload {base!r} has no more than {len(names)} variants to draw")
        changes = {
            axis: values[index]
            for axis, values in choices.items()
            if (index := _pick(f"{seed}\0{base}\0{number}\0{axis}", len(values)))
        }
        number += 1
        if changes not in taken:
            taken.append(changes)
            names.append(composed_name(base, changes))
    return names


def _pick(what: str, below: int) -> int:
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big") % below


def _compositions(choices: Mapping[str, tuple[Any, ...]]) -> int:
    total = 1
    for values in choices.values():
        total *= len(values)
    return total


def _changes(base: str, name: str) -> Changes:
    if name in (named := fixed(base)):
        return named[name]
    choices, changes = axes(base), dict[str, Any]()
    first, *parts = name.split("+")
    if first != base or not parts:
        raise unknown("workload", name, [base, *named], "`timetrial list` shows all.")
    for part in parts:
        axis, _, said = part.partition("=")
        if axis not in choices:
            raise unknown("axis", axis, choices, f"These are the axes of workload {base!r}.")
        values = {str(value): value for value in choices[axis][1:]}
        if said not in values:
            raise UserError(f"variant {name!r}: {axis} can become {', '.join(values)}, not {said!r}")
        changes[axis] = values[said]
    if name != (canonical := composed_name(base, changes)):
        raise UserError(f"variant {name!r} is called {canonical!r}")
    return changes


def _module(base: str) -> Any:
    module: Any = importlib.import_module(f"timetrial.workloads.{base}")
    if hasattr(module, "AXES") and not dataclasses.is_dataclass(module.MODEL):
        raise UserError(f"workload {base!r}: MODEL must be a dataclass, so that variants can be made of it")
    return module
