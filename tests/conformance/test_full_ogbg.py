"""The data of ogbg: OGB's files, the twin, and a molecule as a row."""

import gzip
import zipfile

import numpy as np
import pytest

from timetrial.errors import UserError
from timetrial.full import molpcba
from timetrial.full.molpcba import BONDS, LABELS, NODES, UNKNOWN, read, row, twin
from timetrial.registry import load_workload
from timetrial.workload import Field


def archive(path):
    """Three molecules of 2, 1 and 3 atoms, of which the last is of the training split and the others are of valid."""
    known = [""] * LABELS
    labels = [["1", *known[1:]], known, [*known[:-1], "0.0"]]
    files = {
        "raw/num-node-list": "2\n1\n3\n",
        "raw/num-edge-list": "1\n0\n2\n",
        "raw/node-feat": "".join(f"{atom},0,4,5,0,0,1,0,118\n" for atom in range(6)),
        "raw/edge-feat": "0,0,1\n1,0,0\n4,5,1\n",
        "raw/edge": "0,1\n0,2\n1,2\n",
        "raw/graph-label": "".join(",".join(fields) + "\n" for fields in labels),
        "split/scaffold/train": "2\n",
        "split/scaffold/valid": "1\n0\n",
    }
    with zipfile.ZipFile(path, "w") as made:
        for name, text in files.items():
            made.writestr(f"pcba/{name}.csv.gz", gzip.compress(text.encode()))
    return path


def test_molecules_are_read_by_split_in_the_order_of_their_numbers(tmp_path):
    path = archive(tmp_path / "pcba.zip")
    (three,), (two, one) = read(path, "train"), read(path, "valid")
    assert three["atoms"][:, 0].tolist() == [3, 4, 5]
    assert three["atoms"][0].tolist() == [3, 0, 4, 5, 0, 0, 1, 0, 118]
    assert (three["ends"].tolist(), three["bonds"].tolist()) == ([[0, 2], [1, 2]], [[1, 0, 0], [4, 5, 1]])
    assert (two["atoms"][:, 0].tolist(), two["ends"].tolist()) == ([0, 1], [[0, 1]])
    assert (one["atoms"].shape, one["bonds"].shape, one["ends"].shape) == ((1, 9), (0, 3), (0, 2))
    assert two["label"].tolist() == [1] + [UNKNOWN] * (LABELS - 1)
    assert three["label"].tolist() == [UNKNOWN] * (LABELS - 1) + [0]
    assert set(one["label"].tolist()) == {UNKNOWN}


def test_what_is_not_the_whole_archive_is_refused_with_its_name(tmp_path):
    whole = archive(tmp_path / "pcba.zip").read_bytes()
    place = whole.rindex(b"pcba/raw/node-feat")
    packed = whole.index(b"pcba/raw/node-feat") + 60
    for bytes_ in (
        b"<html>not found</html>",
        whole[: len(whole) // 2],
        whole[:place] + b"pcba/raw/NODE" + whole[place + 13 :],
        whole[:packed] + bytes(8) + whole[packed + 8 :],
    ):
        (tmp_path / "pcba.zip").write_bytes(bytes_)
        with pytest.raises(UserError, match=r"pcba\.zip: .*and whole"):
            next(read(tmp_path / "pcba.zip", "train"))


def fits(field: Field, value: np.ndarray) -> bool:
    assert field.below is not None
    return value.shape == field.shape and value.dtype == field.dtype and 0 <= value.min() <= value.max() < field.below


def test_rows_of_the_twin_are_what_the_workload_says_of_its_fields():
    fields = load_workload("ogbg").fields
    for example in twin("valid", np.random.RandomState(0), 20):
        made = row(example, None)
        assert made.keys() == fields.keys()
        assert all(fits(fields[name], np.asarray(value)) for name, value in made.items())


def test_a_row_is_a_molecule_with_free_places_behind_it():
    (example,) = twin("train", np.random.RandomState(1), 1)
    made = row(example, np.random.RandomState(2))
    nodes, bonds = len(example["atoms"]), len(example["bonds"])
    assert (made["atom_padding"], made["bond_padding"]) == (NODES - nodes, BONDS - bonds)
    np.testing.assert_array_equal(made["atoms"][:nodes], example["atoms"])
    np.testing.assert_array_equal(made["ends"][:bonds], example["ends"])
    assert not made["atoms"][nodes:].any()
    assert not made["ends"][bonds:].any()
    assert made["ends"].max() < nodes


def test_a_molecule_that_is_too_large_is_refused():
    (example,) = twin("train", np.random.RandomState(1), 1)
    with pytest.raises(UserError, match="has 513 atoms"):
        row({**example, "atoms": np.zeros((513, 9), np.uint8)}, None)


def test_a_smoothed_label_is_near_0_or_1_less_the_smoothing_and_unknown_ones_count_for_nothing():
    label = np.full((1, LABELS), UNKNOWN, np.uint8)
    label[0, :2] = 1, 0
    logits = np.full((1, LABELS), 0.5, np.float32)
    losses, known = load_workload("ogbg").loss(logits, {"label": label}, label_smoothing=0.2)
    yes, no = -np.log(1 / (1 + np.exp(-0.5))), -np.log(1 / (1 + np.exp(0.5)))
    one, zero = 0.8 + 0.2 / 128, 0.2 / 128
    np.testing.assert_allclose(losses, [one * yes + (1 - one) * no + zero * yes + (1 - zero) * no], rtol=1e-5)
    assert known.tolist() == [2]


def test_the_twin_is_another_workload_and_needs_a_data_set_of_records():
    workload = load_workload("ogbg_gelu@twin")
    assert (workload.name, workload.data.name, workload.variant_of) == ("ogbg_gelu@twin", "ogbg_molpcba_twin", None)
    assert workload.default_batch_size == 4
    assert load_workload("ogbg").data is molpcba.DATASET
    for name, said in (
        ("lobes@twin", "data set lobes has no synthetic twin"),
        ("ogbg@tvin", "only ogbg@twin is known"),
    ):
        with pytest.raises(UserError, match=said):
            load_workload(name)
