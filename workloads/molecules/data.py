"""QM9 as graphs of bonds with their lengths, and which molecules are extreme in a property.

The package qm9pack holds each molecule's atoms, their places and what density functional theory says of it (B3LYP).
The atoms other than hydrogen are the nodes of its graph; two of them within `BOND_ANGSTROM` are bonded. Of the places
only the lengths of bonds are kept.

The bytes are the same on every machine: numbers are parsed and compared, lengths are compared by their squares, and
the few sums and products are elementwise IEEE float64 arithmetic, which has one correct result.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from timetrial.data import SPLITS, Dataset
from timetrial.errors import UserError

NODES = 9
NEIGHBOURS = 4
"""The most bonds to other nodes that a node has."""
ELEMENTS = ("C", "N", "O", "F")
"""A node's element has the code 1 + its place here; 0 where there is no node."""
BOND_ANGSTROM = 1.7
"""Few pairs of nodes are as far apart: 50 ordered ones, of 2.4 million bonds, between 1.70 and 1.76."""
LENGTHS_ANGSTROM = tuple((116 + 2 * i) / 100 for i in range(22))
"""Bounds of the classes of bond length. A bond's code is 1 + how many of them it exceeds; 0 where there is no bond."""
CODES = {"element": 1 + len(ELEMENTS), "hydrogens": 5, "bond": 2 + len(LENGTHS_ANGSTROM)}
"""Values that a feature may take; 0 is absence, but for hydrogens."""
UNKNOWN = 2
"""The label of what is not known of a molecule."""


class Label(NamedTuple):
    """Positive are the molecules of train with the lowest or highest values: this share of all that have one."""

    property: str
    end: Literal["lowest", "highest"]
    percent: int


LABELS = (
    Label("gap", "lowest", 2),
    Label("gap", "highest", 5),
    Label("dipole", "highest", 10),
    Label("dipole", "highest", 3),
    Label("homo", "lowest", 5),
    Label("lumo", "highest", 5),
    Label("largest_charge", "highest", 10),
    Label("largest_charge", "lowest", 5),
    Label("smallest_charge", "highest", 5),
    Label("lowest_frequency", "lowest", 5),
    Label("lowest_frequency", "highest", 2),
    Label("rotation", "lowest", 10),
)


def _number(text: str) -> float:
    return float(text.replace("*^", "e"))  # as Mathematica writes it


def _numbers(text: str) -> list[float]:
    return [_number(item) for item in text.replace("[", "").replace("]", "").split(",")]


def _rotation(text: str) -> float:
    """A linear molecule does not rotate about its axis; the tables say 0."""
    return _number(text) or np.nan


PROPERTIES: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "gap": ("HOMO_LUMO_gap_au", _number),
    "dipole": ("Dipole_debye", _number),
    "homo": ("HOMO_au", _number),
    "lumo": ("LUMO_au", _number),
    "largest_charge": ("Mulliken_pop", lambda text: max(_numbers(text))),
    "smallest_charge": ("Mulliken_pop", lambda text: min(_numbers(text))),
    "lowest_frequency": ("Harmonic_Freq_cmi", lambda text: min(_numbers(text))),
    "rotation": ("RotA_GHz", _rotation),
}
"""The column of each property, and what it takes of the text there; NaN where a molecule has no such property."""


class Molecule(NamedTuple):
    elements: list[str]
    places: list[float]
    """In angstrom, three for each atom."""
    properties: list[float]


def generate() -> dict[str, dict[str, np.ndarray]]:
    """The splits, each in the order of its graphs' digests: `graphs_of` and `labels_of` say what a row holds."""
    elements, places, properties = zip(*_molecules(), strict=True)
    graphs = graphs_of(elements, places)
    digest = digests_of(graphs)
    order = np.argsort(digest, kind="stable")
    rows = {split: order[splits_of(digest[order]) == split] for split in SPLITS}
    values = dict(zip(PROPERTIES, np.array(properties).T, strict=True))
    arrays = {**graphs, "label": labels_of(values, rows["train"])}
    return {split: {name: array[rows[split]] for name, array in arrays.items()} for split in SPLITS}


def splits_of(digest: np.ndarray) -> np.ndarray:
    """The split of each graph, from its digest: about 1 of 32 is for validation, and 1 of 32 for test."""
    return np.array(["valid", "test", *["train"] * 30])[digest % np.uint64(32)]


def digests_of(graphs: Mapping[str, np.ndarray]) -> np.ndarray:
    """A hash of what is bonded to what, uint64 (rows,): neither the order of nodes nor lengths of bonds change it.

    Stereoisomers therefore share it. Weisfeiler and Leman's refinement of colours: a node's hash is mixed with the sum
    of those of its neighbours, as often as there are nodes.
    """
    element, hydrogens = graphs["element"].astype(np.uint64), graphs["hydrogens"].astype(np.uint64)
    colour = _mix(element * np.uint64(8) + hydrogens)
    rows = np.arange(len(colour))[:, None, None]
    for _ in range(NODES):
        around = np.where(graphs["bond"] > 0, _mix(colour)[rows, graphs["neighbour"]], np.uint64(0))
        colour = _mix(colour * np.uint64(3) + around.sum(axis=2))
    return _mix(np.where(element > 0, colour, np.uint64(0)).sum(axis=1))


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014), a bijection whose output bits look independent."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def graphs_of(elements: Sequence[list[str]], places: Sequence[list[float]]) -> dict[str, np.ndarray]:
    """The graphs of molecules, uint8, in the order of their atoms.

    `element` (rows, NODES) and `hydrogens` (rows, NODES), those nearest to the node; `neighbour` and `bond`, both
    (rows, NODES, NEIGHBOURS): the nodes that a node is bonded to and the codes of the bonds' lengths. Free places of
    `neighbour` hold the node itself, those of the others 0.
    """
    chunks = [_graphs(elements[i : i + 4096], places[i : i + 4096]) for i in range(0, len(elements), 4096)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _graphs(elements: Sequence[list[str]], places: Sequence[list[float]]) -> dict[str, np.ndarray]:
    codes = {"H": 0, **{element: 1 + i for i, element in enumerate(ELEMENTS)}}
    atoms = max(len(row) for row in elements)
    element = np.zeros((len(elements), NODES), np.uint8)
    node_place = np.full((len(elements), NODES, 3), np.inf)
    hydrogen_place = np.full((len(elements), atoms, 3), np.nan)
    for row, (names, flat) in enumerate(zip(elements, places, strict=True)):
        code = np.array([codes[name] for name in names])
        place = np.array(flat).reshape(-1, 3)
        nodes = code > 0
        element[row, : nodes.sum()] = code[nodes]
        node_place[row, : nodes.sum()] = place[nodes]
        hydrogen_place[row, : (~nodes).sum()] = place[~nodes]

    row, hydrogen = np.nonzero(~np.isnan(hydrogen_place[..., 0]))
    nearest = np.argmin(_squares(hydrogen_place[row, hydrogen][:, None], node_place[row]), axis=-1)
    hydrogens = np.zeros_like(element)
    np.add.at(hydrogens, (row, nearest), 1)

    both = (element > 0)[:, :, None] & (element > 0)[:, None] & ~np.eye(NODES, dtype=bool)
    node_place[element == 0] = 0.0
    square = _squares(node_place[:, :, None], node_place[:, None])
    bonded = both & (square < BOND_ANGSTROM * BOND_ANGSTROM)
    if bonded.sum(axis=2).max() > NEIGHBOURS:
        raise UserError(f"a node has more than {NEIGHBOURS} bonds; pip install --force-reinstall qm9pack==1.0.3")
    length = np.searchsorted([bound * bound for bound in LENGTHS_ANGSTROM], square)
    neighbour = np.argsort(~bonded, axis=2, kind="stable")[:, :, :NEIGHBOURS]
    used = np.take_along_axis(bonded, neighbour, axis=2)
    return {
        "element": element,
        "hydrogens": hydrogens,
        "neighbour": np.where(used, neighbour, np.arange(NODES)[:, None]).astype(np.uint8),
        "bond": np.where(used, 1 + np.take_along_axis(length, neighbour, axis=2), 0).astype(np.uint8),
    }


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of places (…, 3): three products, added in this order."""
    x, y, z = np.moveaxis(a - b, -1, 0)
    return x * x + y * y + z * z


def labels_of(values: Mapping[str, np.ndarray], train: np.ndarray) -> np.ndarray:
    """For each of `LABELS` 0, 1 or `UNKNOWN`, uint8 (rows, labels), by thresholds from the rows of `train`."""
    columns: list[np.ndarray] = []
    for label in LABELS:
        value = values[label.property]
        known = np.sort(value[train][~np.isnan(value[train])])
        count = len(known) * label.percent // 100
        positive = value <= known[count - 1] if label.end == "lowest" else value >= known[-count]
        columns.append(np.where(np.isnan(value), UNKNOWN, positive))
    return np.stack(columns, axis=1).astype(np.uint8)


def _molecules() -> Iterator[Molecule]:
    """All of the package's, from its CSV files. The package is not imported: that needs pandas."""
    spec = find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package qm9pack is not installed: pip install qm9pack==1.0.3")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    for part in (1, 2, 3):
        with (folder / f"qm9_part{part}.csv").open(encoding="utf-8", newline="") as file:
            table = csv.reader(file)
            column = {name: i for i, name in enumerate(next(table))}
            for row in table:
                yield Molecule(
                    row[column["Elements"]][2:-2].split("','"),
                    _numbers(row[column["XYZ_Ang"]]),
                    [read(row[column[name]]) for name, read in PROPERTIES.values()],
                )


DATASET = Dataset(
    name="qm9_extremes",
    version="1.0.0",
    generate=generate,
    sha256="3b9837bed6df63a5eb96f7adddda6465fbfefd12962b59817912c968040be530",
    packages={"qm9pack": "1.0.3"},
    licence="MIT",
    citation="Ramakrishnan, Dral, Rupp, von Lilienfeld: Quantum chemistry structures and properties of 134 kilo "
    "molecules, Scientific Data 1, 2014; as packaged in qm9pack",
)
