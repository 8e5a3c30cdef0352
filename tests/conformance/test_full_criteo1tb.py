"""Criteo's click logs: from lines of text to rows of numbers."""

import gzip
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.errors import UserError
from timetrial.full import click_logs
from timetrial.full.recorded import Pipeline, Recorded
from timetrial.registry import load_workload

LINES = [
    ["1", "5", "110", "", "16", "", "1", "0", "14", "7", "1", "", "306", "", "62770d79", "e21f5d58", *[""] * 24],
    ["0", "-2", *["2147483647"] * 12, *["ffffffff"] * 26],
]


def text_of(lines):
    return "".join("\t".join(line) + "\n" for line in lines).encode()


def as_number(text):
    return np.array([int.from_bytes(text, "little")], np.uint64)


# Published by BigQuery, whose FARM_FINGERPRINT is this function: as signed 64-bit integers.
@pytest.mark.parametrize(
    ("text", "expected"), [(b"1footrue", -1541654101129638711), (b"2applefalse", 2794438866806483259)]
)
def test_fingerprints_are_those_of_farmhash(text, expected):
    found = click_logs.fingerprint(as_number(text[:8]), as_number(text[-8:]), np.array([len(text)], np.uint64))
    assert found.astype(np.int64).tolist() == [expected]


def test_a_line_becomes_a_label_13_integers_and_26_rows_of_the_table():
    rows = click_logs.parsed(text_of(LINES))
    assert {name: (array.dtype, array.shape) for name, array in rows.items()} == {
        "label": (np.uint8, (2,)),
        "numeric": (np.int32, (2, 13)),
        "categorical": (np.int32, (2, 26)),
    }
    assert rows["label"].tolist() == [1, 0]
    assert rows["numeric"].tolist() == [[5, 110, 0, 16, 0, 1, 0, 14, 7, 1, 0, 306, 0], [-2, *[2**31 - 1] * 12]]
    assert rows["categorical"].min() >= 0
    assert rows["categorical"].max() < 1 << 22


def test_a_category_is_hashed_with_its_columns_number_behind_it_and_an_empty_one_as_zeros():
    rows = click_logs.parsed(text_of(LINES))["categorical"]
    for row, column, category in [(0, 0, "62770d79"), (0, 1, "e21f5d58"), (0, 25, "00000000"), (1, 12, "ffffffff")]:
        text = f"{category}{column}".encode()
        hashed = click_logs.fingerprint(as_number(text[:8]), as_number(text[-8:]), np.array([len(text)], np.uint64))
        assert rows[row, column] == int(hashed[0]) % int(click_logs.BUCKETS[column]) % (1 << 22)


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), min_size=13, max_size=13), max_size=5))
def test_integers_are_what_the_text_says(lines):
    text = text_of([["0", *("" if n is None else str(n) for n in line), *[""] * 26] for line in lines])
    assert click_logs.parsed(text)["numeric"].tolist() == [[n or 0 for n in line] for line in lines]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINES[0][:-1], "has not 40 fields"),
        ([*LINES[0], ""], "has not 40 fields"),
        (["1", "x", *LINES[0][2:]], "not made of digits"),
        ([*LINES[0][:-1], "62770d7"], "has not 8 digits"),
        (["2", *LINES[0][1:]], "a label is not 0 or 1"),
        (["1", "2147483648", *LINES[0][2:]], "takes more than 32 bits"),
    ],
)
def test_text_that_is_no_click_log_is_refused_with_the_file_and_the_place(tmp_path, line, said):
    days_of(tmp_path, {0: [LINES[0], line]})
    with pytest.raises(UserError, match=rf"day_0\.gz, among the lines from 1 on: .*{said}"):
        first_integers(tmp_path, "train")


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    days_of(tmp_path, {0: LINES})
    packed = (tmp_path / "day_0.gz").read_bytes()
    (tmp_path / "day_0.gz").write_bytes(packed[:-9])
    with pytest.raises(UserError, match=r"day_0\.gz.*whole"):
        first_integers(tmp_path, "train")
    (tmp_path / "day_0.gz").write_bytes(gzip.compress(text_of(LINES)[:-1]))
    with pytest.raises(UserError, match="the last line has no end"):
        first_integers(tmp_path, "train")


def test_a_file_with_a_kind_of_block_that_gzip_does_not_have_is_refused(tmp_path):
    days_of(tmp_path, {0: LINES})
    packed = (tmp_path / "day_0.gz").read_bytes()
    (tmp_path / "day_0.gz").write_bytes(packed[:10] + b"\x07" + packed[11:])
    with pytest.raises(UserError, match=r"day_0\.gz.*whole"):
        first_integers(tmp_path, "train")


def days_of(folder, lines):
    for day in range(24):
        (folder / f"day_{day}.gz").write_bytes(gzip.compress(text_of(lines.get(day, []))))


def first_integers(folder, split):
    parts = click_logs.parts(folder, folder, split)
    return [[n for e in part() for n in e["numeric"][:, 0].tolist()] for part in parts]


@pytest.mark.parametrize("chunk", [1, 47, 1000])
def test_23_days_train_and_the_last_one_tests_and_then_validates(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(click_logs, "_CHUNK", chunk)
    monkeypatch.setattr(click_logs, "_TEST_ROWS", 6)
    lines = [["0", str(i), *[""] * 38] for i in range(20)]
    days_of(tmp_path, {0: lines[:2], 22: lines[2:10], 23: lines[10:]})
    train = first_integers(tmp_path, "train")
    assert (len(train), train[0], train[22]) == (23, [0, 1], [2, 3, 4, 5, 6, 7, 8, 9])
    assert first_integers(tmp_path, "test") == [[10, 11, 12, 13, 14, 15]]
    assert first_integers(tmp_path, "valid") == [[16, 17, 18, 19]]


def test_raw_files_become_records_of_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    monkeypatch.setattr(click_logs, "_TEST_ROWS", 1)
    raw = tmp_path / "raw" / "criteo1tb"
    raw.mkdir(parents=True)
    days_of(raw, {0: LINES, 5: LINES[:1], 23: LINES})
    sizes = {"train": 3, "valid": 1, "test": 1}
    layout = replace(click_logs.LAYOUT, sizes=sizes, space_bytes=0, block=2)
    dataset = Recorded.of(layout, click_logs.PIPELINE)
    expected = {"train": [*LINES, LINES[0]], "valid": LINES[1:], "test": LINES[:1]}
    for split, lines in expected.items():
        rows = dataset.rows(split).take(np.arange(sizes[split]), None)
        for name, array in click_logs.row(click_logs.parsed(text_of(lines)), None).items():
            np.testing.assert_array_equal(rows[name], array)


def test_rows_have_the_fields_of_the_workload_and_logarithms_of_the_integers():
    workload = load_workload("criteo1tb")
    [example] = click_logs.twin("train", np.random.RandomState(0), 30)
    rows = click_logs.row({**example, "numeric": np.tile(np.arange(-2, 11, dtype=np.int32), (30, 1))}, None)
    assert {name: (array.dtype, array.shape) for name, array in rows.items()} == {
        name: (field.dtype, (30, *field.shape)) for name, field in workload.fields.items()
    }
    expected = [0, 0, *[math.log(n + 1) for n in range(11)]]
    np.testing.assert_allclose(rows["numeric"], np.tile(expected, (30, 1)), rtol=1e-6)


@pytest.mark.parametrize("rows", [8, 10, 200])
def test_a_sample_of_rows_in_blocks_takes_blocks_at_equal_distances(tmp_path, rows):
    def numbered(split, rng, count):
        numeric = np.repeat(np.arange(count, dtype=np.int32)[:, None], 13, axis=1)
        yield {"label": np.zeros(count, np.uint8), "numeric": numeric, "categorical": np.zeros((count, 26), np.int32)}

    dataset = Recorded.of(
        replace(click_logs.LAYOUT, twin=numbered, block=4), Pipeline(row=lambda example, rng: dict(example))
    )
    sample = dataset.twin().rows("train", tmp_path).sample(rows)
    taken = sample.take(np.arange(len(sample)), None)["numeric"][:, 0]
    assert len({*taken.tolist()}) == rows
    blocks = list(dict.fromkeys((taken // 4).tolist()))
    assert len(blocks) == -(-rows // 4)
    assert max(np.diff(blocks)) - min(np.diff(blocks)) <= 1


def test_the_twins_integers_tell_of_the_label():
    [rows] = click_logs.twin("train", np.random.RandomState(0), 200)
    mean = rows["numeric"].mean(1)
    assert mean[rows["label"] == 1].max() < mean[rows["label"] == 0].min()
