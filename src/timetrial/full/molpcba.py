"""ogbg-molpcba: molecules as graphs, and which of 128 assays each was active in, from OGB's comma-separated files."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError
from timetrial.full.recorded import Example, Layout, Pipeline, RawFile, Recorded, Row

NODES, BONDS = 512, 512
"""Places of a row. The largest molecules of the training split have 313 atoms, and 318 bonds, as a tutorial of
Graphcore's counts them (github.com/graphcore/tutorials, blogs_code/gnns, 2022); of the others no count was found."""
LABELS = 128
UNKNOWN = 2
"""The label of a molecule that was not tried."""
_LABEL = {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "": UNKNOWN, "nan": UNKNOWN}
_ARCHIVE = "pcba.zip"


def features() -> dict[str, Any]:
    """Atoms by 9 features and bonds by 3, as OGB numbers them; a bond's two ends; 0, 1 or unknown for each label."""
    import tensorflow_datasets as tfds

    def tensor(shape: tuple[int | None, ...], dtype: type[np.generic]) -> Any:
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

    return {
        "atoms": tensor((None, 9), np.uint8),
        "bonds": tensor((None, 3), np.uint8),
        "ends": tensor((None, 2), np.int32),
        "label": tensor((LABELS,), np.uint8),
    }


def parts(raw: Path, folder: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
    """A split is one part."""
    del folder
    return [partial(read, raw / _ARCHIVE, split)]


def read(archive: Path, split: str) -> Iterator[Example]:
    """The molecules of a split by scaffolds, in the order of their numbers."""
    try:
        with zipfile.ZipFile(archive) as files:
            chosen = np.sort(_numbers(files, f"split/scaffold/{split}", np.int64)[:, 0])
            labels = _labels(files)
            atoms, bonds = _numbers(files, "raw/node-feat", np.uint8), _numbers(files, "raw/edge-feat", np.uint8)
            ends = _numbers(files, "raw/edge", np.int32)
            first_atom, first_bond = (
                np.append(0, np.cumsum(_numbers(files, f"raw/num-{what}-list", np.int64)[:, 0]))
                for what in ("node", "edge")
            )
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError) as error:
        raise UserError(f"{archive}: {error}; is it OGB's archive of ogbg-molpcba, and whole?") from None
    for molecule in chosen:
        of_bonds = slice(first_bond[molecule], first_bond[molecule + 1])
        yield {
            "atoms": atoms[first_atom[molecule] : first_atom[molecule + 1]],
            "bonds": bonds[of_bonds],
            "ends": ends[of_bonds],
            "label": labels[molecule],
        }


def _lines(files: zipfile.ZipFile, name: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(gzip.open(files.open(f"pcba/{name}.csv.gz")), encoding="ascii")


def _numbers(files: zipfile.ZipFile, name: str, dtype: type[np.generic]) -> np.ndarray:
    with _lines(files, name) as lines:
        return np.loadtxt(lines, dtype, delimiter=",", ndmin=2)


def _labels(files: zipfile.ZipFile) -> np.ndarray:
    """(molecules, labels), uint8; a field is empty where a molecule was not tried."""
    with _lines(files, "raw/graph-label") as lines:
        return np.array([[_LABEL[field] for field in line.rstrip("\n").split(",")] for line in lines], np.uint8)


def twin(split: str, random: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Trees with a few rings. A label that is known says whether there are many atoms of a kind of its own."""
    del split
    for _ in range(rows):
        nodes = random.randint(6, 40)
        atoms = random.randint(0, 4, (nodes, 9)).astype(np.uint8)
        tree = [(node, random.randint(0, node)) for node in range(1, nodes)]
        rings = [(node, (node + 5) % nodes) for node in random.randint(0, nodes, 2)]
        ends = np.array([*tree, *rings], np.int32)
        many = np.array([np.mean(atoms[:, label % 9] == label % 4) > 0.25 for label in range(LABELS)])
        label = np.where(random.random_sample(LABELS) < 0.5, many, UNKNOWN).astype(np.uint8)
        bonds = random.randint(0, 3, (len(ends), 3)).astype(np.uint8)
        yield {"atoms": atoms, "bonds": bonds, "ends": ends, "label": label}


def row(example: Example, random: np.random.RandomState | None) -> Row:
    """A molecule and free places behind it; the paddings are how many of the places are free."""
    del random
    atoms, bonds, ends = example["atoms"], example["bonds"], example["ends"]
    if len(atoms) > NODES or len(bonds) > BONDS:
        raise UserError(
            f"a molecule of ogbg-molpcba has {len(atoms)} atoms and {len(bonds)} bonds; rows hold {NODES} and {BONDS}"
        )
    return {
        "atoms": _filled(atoms, NODES),
        "atom_padding": np.int32(NODES - len(atoms)),
        "bonds": _filled(bonds, BONDS),
        "ends": _filled(ends.astype(np.uint16), BONDS),
        "bond_padding": np.int32(BONDS - len(bonds)),
        "label": example["label"],
    }


def _filled(array: np.ndarray, rows: int) -> np.ndarray:
    filled = np.zeros((rows, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled


LAYOUT = Layout(
    name="ogbg_molpcba",
    version="1.0.0",
    licence="MIT",
    citation="Hu et al., Open Graph Benchmark: Datasets for Machine Learning on Graphs (2020), arXiv:2005.00687",
    access="Nothing is asked before the download.",
    raw=[RawFile(path=_ARCHIVE, source="https://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/pcba.zip")],
    space_bytes=600_000_000,
    hours=0.2,
    sizes={"train": 350_343, "valid": 43_793, "test": 43_793},
    features=features,
    parts=parts,
    twin=twin,
)
DATASET = Recorded.of(LAYOUT, Pipeline(row=row))
