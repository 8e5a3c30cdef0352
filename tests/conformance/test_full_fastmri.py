"""fastMRI's knees: from volumes of k-space to undersampled and full images."""

import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from timetrial.errors import UserError
from timetrial.full import knees, philox, undersampling
from timetrial.full.recorded import Recorded
from timetrial.registry import load_workload

WIDTH = 368


def noise(height, width, seed=0):
    rng = np.random.RandomState(seed)
    return (rng.standard_normal((height, width)) + 1j * rng.standard_normal((height, width))).astype(np.complex64)


def centred_image(kspace_hw):
    """By sums over all frequencies, which are counted from the middle of each axis, as places are."""
    for axis, n in enumerate(kspace_hw.shape):
        place = np.arange(n) - n // 2
        matrix = np.exp(2j * np.pi * np.outer(place, place) / n) / np.sqrt(n)
        kspace_hw = np.moveaxis(np.tensordot(matrix, kspace_hw, (1, axis)), 0, axis)
    return kspace_hw


def test_a_mask_keeps_the_middle_columns_and_a_quarter_of_all():
    rng = np.random.RandomState(0)
    masks = np.stack([undersampling.column_mask(WIDTH, rng.uniform(size=WIDTH)) for _ in range(200)])
    always = np.flatnonzero(masks.all(0))
    # 29 of 368: the eight hundredths, cut off. Their middle is the axis's, as fastMRI's own masks have it.
    assert always.tolist() == list(range(170, 199))
    assert masks.mean() == pytest.approx(1 / 4, abs=0.005)


@pytest.mark.parametrize("width", [WIDTH, 373])
def test_an_image_is_the_middle_of_the_centred_transform_of_what_the_mask_keeps(width):
    kspace = noise(640, width)
    mask = undersampling.column_mask(width, np.random.RandomState(1).uniform(size=width))
    image = np.abs(centred_image(kspace * mask))[160:480, (width - 320) // 2 : (width - 320) // 2 + 320]
    target = np.random.RandomState(2).uniform(0, 9, (320, 320)).astype(np.float32)
    row = undersampling.undersampled(undersampling.half_transformed(kspace), mask, target)
    assert (row["mean"], row["deviation"]) == (pytest.approx(image.mean(), 1e-4), pytest.approx(image.std(), 1e-4))
    for name, pixels in (("image", image), ("target", target)):
        expected = np.clip((pixels - image.mean()) / image.std(), -6, 6)
        np.testing.assert_allclose(row[name], expected, atol=1e-3)
        assert row[name].dtype == np.float32


@pytest.mark.parametrize(
    ("word", "expected"),
    [  # published with Random123
        (0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (0xFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ],
)
def test_philox_gives_its_known_answers(word, expected):
    found = philox.philox(np.full((1, 4), word, np.uint32), np.full(2, word, np.uint32))
    assert found.tolist() == [expected]


def test_slices_are_evaluated_by_the_numbers_that_tensorflow_draws_for_seed_0():
    # From tf.random.stateless_uniform((368,), [0, 0]) of TensorFlow 2.21: the first four, and the last.
    drawn = [0.2110154628753662, 0.7060099840164185, 0.8000633716583252, 0.7707922458648682, 0.9933956861495972]
    found = philox.uniform_as_in_tensorflow(368)
    assert found[[0, 1, 2, 3, 367]].tolist() == drawn


def volume(path, slices, seed=0):
    path.parent.mkdir(exist_ok=True)
    kspace = np.stack([noise(640, WIDTH, seed + i) for i in range(slices)])
    images = np.random.RandomState(seed).uniform(size=(slices, 320, 320)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["kspace"], file["reconstruction_esc"] = kspace, images
        file.attrs["max"] = images.max()
    return kspace, images


def test_slices_of_a_volume_are_examples_with_the_volumes_largest_value(tmp_path):
    kspace, images = volume(tmp_path / knees.TRAIN / "file1000001.h5", 2)
    [part] = knees.parts(tmp_path, tmp_path, "train")
    for example, of_slice, image in zip(part(), kspace, images, strict=True):
        half = undersampling.half_transformed(of_slice)
        np.testing.assert_array_equal(example["kspace"], np.stack([np.real(half), np.imag(half)], -1))
        np.testing.assert_array_equal(example["image"], image)
        assert example["volume_max"] == images.max()


def test_the_first_hundred_volumes_by_name_validate_and_the_others_test(tmp_path, monkeypatch):
    (tmp_path / knees.VALID).mkdir()
    for number in range(103):
        (tmp_path / knees.VALID / f"file{1000 + number}.h5").touch()
    monkeypatch.setattr(knees, "_slices", lambda path: path.stem)
    names = {split: [part() for part in knees.parts(tmp_path, tmp_path, split)] for split in ("valid", "test")}
    assert names["valid"] == [f"file{number}" for number in range(1000, 1100)]
    assert names["test"] == ["file1100", "file1101", "file1102"]


def test_raw_files_become_records_whose_rows_are_undersampled(tmp_path, monkeypatch):
    monkeypatch.setattr(knees, "_VALID_VOLUMES", 1)
    raw = tmp_path / "raw" / "fastmri_knee_singlecoil"
    names = {"train": f"{knees.TRAIN}/a.h5", "valid": f"{knees.VALID}/b.h5", "test": f"{knees.VALID}/c.h5"}
    raw.mkdir(parents=True)
    for seed, name in enumerate(names.values()):
        volume(raw / name, 1, seed)
    dataset = Recorded.of(replace(knees.LAYOUT, raw=[], sizes=dict.fromkeys(names, 1), space_bytes=0), knees.PIPELINE)
    for split in names:
        rows = dataset.rows(split, tmp_path).take(np.array([0]), None)
        [part] = knees.parts(raw, raw, split)
        for name, expected in knees.row(next(part()), None).items():
            np.testing.assert_array_equal(rows[name], expected[None])


def one_file(folder):
    (folder / knees.TRAIN).mkdir()
    (folder / knees.TRAIN / "a.h5").write_bytes(b"nothing")
    [part] = knees.parts(folder, folder, "train")
    return part


def test_a_file_that_is_no_volume_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.h5: .*single-coil volume of fastMRI"):
        list(one_file(tmp_path)())


def test_without_h5py_what_to_install_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'timetrial\[full\]'"):
        list(one_file(tmp_path)())


@pytest.fixture(scope="module")
def twins():
    return list(knees.twin("train", np.random.RandomState(0), 3))


def test_the_twins_full_image_is_that_of_its_k_space(twins):
    for example in twins:
        half = example["kspace"] @ [1, 1j]
        everything = undersampling.undersampled(half, np.ones(half.shape[1]), example["image"])
        np.testing.assert_allclose(everything["image"], everything["target"], atol=1e-3)
        assert example["volume_max"] == example["image"].max()


@pytest.mark.parametrize("seed", [None, 3])
def test_rows_have_the_fields_of_the_workload(twins, seed):
    fields = load_workload("fastmri").fields
    for example in twins:
        row = knees.row(example, seed if seed is None else np.random.RandomState(seed))
        assert {name: (array.dtype, array.shape) for name, array in row.items()} == {
            name: (field.dtype, field.shape) for name, field in fields.items()
        }
        assert row["volume_max"] == example["volume_max"]


def test_masks_are_drawn_for_a_training_row_and_fixed_for_one_that_is_evaluated(twins):
    seeds = (None, None, 1, 1, 2)
    evaluated, fixed, first, again, other = (
        knees.row(twins[0], seed if seed is None else np.random.RandomState(seed))["image"] for seed in seeds
    )
    np.testing.assert_array_equal(evaluated, fixed)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != evaluated).any()
