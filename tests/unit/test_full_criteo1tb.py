"""Criteo's click logs: from lines of text to rows of numbers."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.errors import UserError
from timetrial.full import click_logs

TABLE_ROWS = 1 << 22
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
    rows = click_logs.parsed(text_of(LINES), TABLE_ROWS)
    assert {name: (array.dtype, array.shape) for name, array in rows.items()} == {
        "label": (np.uint8, (2,)),
        "numeric": (np.int32, (2, 13)),
        "categorical": (np.int32, (2, 26)),
    }
    assert rows["label"].tolist() == [1, 0]
    assert rows["numeric"].tolist() == [[5, 110, 0, 16, 0, 1, 0, 14, 7, 1, 0, 306, 0], [-2, *[2**31 - 1] * 12]]
    assert rows["categorical"].min() >= 0
    assert rows["categorical"].max() < TABLE_ROWS


def test_a_category_is_hashed_with_its_columns_number_behind_it_and_an_empty_one_as_zeros():
    rows = click_logs.parsed(text_of(LINES), TABLE_ROWS)["categorical"]
    for row, column, category in [(0, 0, "62770d79"), (0, 1, "e21f5d58"), (0, 25, "00000000"), (1, 12, "ffffffff")]:
        text = f"{category}{column}".encode()
        hashed = click_logs.fingerprint(as_number(text[:8]), as_number(text[-8:]), np.array([len(text)], np.uint64))
        assert rows[row, column] == int(hashed[0]) % int(click_logs.BUCKETS[column]) % TABLE_ROWS


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), min_size=13, max_size=13), max_size=5))
def test_integers_are_what_the_text_says(lines):
    text = text_of([["0", *("" if n is None else str(n) for n in line), *[""] * 26] for line in lines])
    assert click_logs.parsed(text, TABLE_ROWS)["numeric"].tolist() == [[n or 0 for n in line] for line in lines]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINES[0][:-1], "has not 40 fields"),
        ([*LINES[0], ""], "has not 40 fields"),
        (["1", "x", *LINES[0][2:]], "not made of digits"),
        ([*LINES[0][:-1], "62770d7"], "has not 8 digits"),
    ],
)
def test_text_that_is_no_click_log_is_refused_with_the_file_and_the_place(tmp_path, line, said):
    path = tmp_path / "day_0"
    path.write_bytes(text_of([LINES[0], line]))
    with pytest.raises(UserError, match=rf"day_0, among the lines from 1 on: .*{said}"):
        list(click_logs.blocks([path], TABLE_ROWS))


def test_files_are_read_one_after_the_other_packed_or_not_in_blocks_of_equal_size(tmp_path, monkeypatch):
    monkeypatch.setattr(click_logs, "BLOCK_ROWS", 4)
    monkeypatch.setattr(click_logs, "_CHUNK", 300)
    lines = [["0", str(i), *[""] * 38] for i in range(11)]
    (tmp_path / "day_0").write_bytes(text_of(lines[:5]).rstrip(b"\n"))
    with gzip.open(tmp_path / "day_1.gz", "wb") as file:
        file.write(text_of(lines[5:]))
    files = [tmp_path / "day_0", tmp_path / "day_1.gz"]

    def numbers(**of):
        return [block["numeric"][:, 0].tolist() for block in click_logs.blocks(files, TABLE_ROWS, **of)]

    assert numbers() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert numbers(first=7) == [[7, 8, 9, 10]]
    assert numbers(stop=6) == [[0, 1, 2, 3], [4, 5]]
