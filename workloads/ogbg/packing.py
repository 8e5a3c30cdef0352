"""Molecules packed one behind another on the device, so that a network computes on little more than what exists.

A row of a batch is as long as the largest molecule may be, eighteen times the mean. Rows keep that shape, because the
harness splits, repeats, weighs and counts them; here their atoms and bonds move together. Shapes: B rows in g groups of
G, P places in a pack.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from timetrial.workload import Array, Batch

ROWS = 32
"""At least, of a group. A group lies on one device where the number of devices divides that of groups."""
PLACES = 34
"""Of a pack for each row: a fifth more than the bonds of the mean molecule, 28.1, and its atoms, 26.0
(https://ogb.stanford.edu/docs/graphprop). Half a row's places come on top, for a group that has large molecules."""


def by_packs(network: Callable[[Mapping[str, Array], Array], Array], batch: Batch, key: Array) -> Array:
    """What `network` finds of each row's molecule, float32 (B, L); it is given packs of G molecules, and finds (G, L).

    If the molecules of a group take more places than its pack has, its rows take turns: as many as surely fit, then the
    next. That is as exact, and slower; nothing of a later turn is kept for the pass back. Where a batch has fewer than
    `ROWS` rows, its pack has room for everything.
    """
    rows = len(batch["atoms"])
    divisors = [n for n in range(1, max(1, rows // ROWS) + 1) if rows % n == 0]
    groups = max(divisors, key=lambda n: (math.gcd(n, 8), n))  # what most numbers of devices divide
    size = rows // groups
    grouped = {
        name: batch[name].reshape(groups, size, *batch[name].shape[1:])
        for name in ("atoms", "atom_padding", "bonds", "bond_padding", "ends")
    }
    longest = max(batch["atoms"].shape[1], batch["bonds"].shape[1])
    whole = size * longest
    places = min(size * PLACES + longest // 2, whole) if size >= ROWS else whole

    def at_once(chosen_gb: Array, key: Array) -> Array:
        """What is found of the chosen rows, which fit; of the others anything."""

        def of_group(group: Mapping[str, Array], chosen_b: Array, key: Array) -> Array:
            return network(pack(group, chosen_b, places), key)

        return jax.vmap(of_group)(grouped, chosen_gb, jax.random.split(key, groups)).reshape(rows, -1)

    if places == whole:
        return at_once(jnp.ones((groups, size), bool), key)
    size_gb = jnp.maximum(*counts(grouped))
    end_gb = jnp.cumsum(size_gb, axis=1)
    room = places - longest  # what starts within it ends within the pack
    turn_gb = jnp.where(end_gb[:, -1:] <= places, 0, (end_gb - size_gb) // room)

    def take_turn(found: Array, number: Array) -> tuple[Array, None]:
        chosen_gb = turn_gb == number
        more = jax.lax.cond(
            jnp.any(chosen_gb), lambda: at_once(chosen_gb, jax.random.fold_in(key, number)), lambda: found
        )
        return jnp.where(chosen_gb.reshape(-1, 1), more, found), None

    @jax.checkpoint
    def later_turns() -> Array:
        nothing = jnp.zeros_like(jax.eval_shape(at_once, turn_gb == 0, key))
        turns = jnp.arange(1, (whole - longest) // room + 1)
        again = jax.checkpoint(take_turn, prevent_cse=False)
        return jax.lax.cond(jnp.any(turn_gb > 0), lambda: jax.lax.scan(again, nothing, turns)[0], lambda: nothing)

    later = later_turns()  # before the first: what that keeps for its pass back is then gone when theirs begins
    return jnp.where((turn_gb == 0).reshape(-1, 1), at_once(turn_gb == 0, key), later)


def counts(rows: Mapping[str, Array]) -> tuple[Array, Array]:
    """The atoms and the bonds of each row, (…, G)."""
    return rows["atoms"].shape[-2] - rows["atom_padding"], rows["bonds"].shape[-2] - rows["bond_padding"]


def pack(rows: Mapping[str, Array], chosen_b: Array, places: int) -> dict[str, Array]:
    """The atoms and bonds of the chosen molecules, one molecule behind another; behind the last, places are free.

    A place is for an atom and for a bond: a molecule takes as many as it has of either, whichever it has more of.
    `atoms` (P, 9), `bonds` (P, 3), and the two `ends` of each bond (P, 2) as places; which `atom_exists` and which
    `bond_exists` (P,), bool; the `row` (P,) of each place, ascending; and `rows` (G,), their numbers. A bond to an atom
    that its molecule lacks does not exist.
    """
    atoms_b, bonds_b = (jnp.where(chosen_b, count, 0) for count in counts(rows))
    end_b = jnp.cumsum(jnp.maximum(atoms_b, bonds_b))
    place_p = jnp.arange(places)
    row_p = jnp.minimum(jnp.searchsorted(end_b, place_p, side="right", method="compare_all"), len(end_b) - 1)
    start_p = jnp.append(0, end_b)[row_p]

    def taken(name: str) -> Array:
        return rows[name].at[row_p, place_p - start_p].get(mode="clip")

    ends_p2 = taken("ends").astype(jnp.int32)
    bond_exists_p = (place_p - start_p < bonds_b[row_p]) & jnp.all(ends_p2 < atoms_b[row_p, None], axis=1)
    return {
        "atoms": taken("atoms"),
        "bonds": taken("bonds"),
        "ends": jnp.where(bond_exists_p[:, None], start_p[:, None] + ends_p2, 0),
        "atom_exists": place_p - start_p < atoms_b[row_p],
        "bond_exists": bond_exists_p,
        "row": row_p,
        "rows": jnp.arange(len(end_b)),
    }
