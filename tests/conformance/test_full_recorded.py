"""Data sets of records: what is to be put where, preparing them, and the rows that they give."""

import functools
import json
import resource
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits import ROWS, digits, parts, read, toy_records, write_raw
from hypothesis import given
from hypothesis import strategies as st
from toy_trials import rules, run
from toys import toy_workload

from timetrial.batches import EpochStream, stretch
from timetrial.data import UNKNOWN_SHA256, DataFolderError, InMemory
from timetrial.devices import Mesh
from timetrial.errors import UserError
from timetrial.full import recording
from timetrial.full.recorded import RawFile
from timetrial.stream import from_host


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of data with the raw files in place."""
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    write_raw(tmp_path)
    return tmp_path


class Killed(Exception):
    pass


def test_without_raw_files_it_says_what_to_put_where_and_what_that_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    dataset = digits(
        raw=[RawFile(path="a.tar", source="example.org/a", bytes=7), RawFile(path="b*", source="b", count=3)]
    )
    with pytest.raises(UserError) as refused:
        dataset.prepare()
    for said in (
        "Sign the agreement at example.org.",
        f"Put into {tmp_path / 'raw' / 'digits'}:",
        "a.tar from example.org/a, 7 bytes: missing",
        "b* (3 files) from b: 0 of 3 are there",
        "0.5 h",
    ):
        assert said in str(refused.value)
    folder = tmp_path / "raw" / "digits"
    folder.mkdir(parents=True)
    (folder / "a.tar").write_bytes(b"12345")
    with pytest.raises(UserError, match="7 bytes: has 5 bytes"):
        dataset.prepare()


def test_rows_are_those_of_the_raw_files_in_their_order(root):
    dataset = digits()
    for split, rows in ROWS.items():
        found = dataset.rows(split)
        assert len(found) == rows
        assert found.take(np.arange(rows), None)["square"].tolist() == [x * x for x in range(rows)]
    assert dataset.state(verify=True) == "prepared"
    assert dataset.rows("train").take(np.array([49, 3, 3]), None)["x"].tolist() == [49, 3, 3]


def test_tensorflow_datasets_reads_a_split_too(root):
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(str(digits().prepare() / "valid"))
    source = builder.as_data_source(split="valid")
    assert [source[i]["digits"] for i in (0, 19)] == [b"0", b"19"]


def test_preparing_goes_on_after_the_last_part_that_was_done(root):
    reads = []

    def noting(raw, folder, split, fails=None):
        def one(part):
            reads.append((split, part))
            for example in read(raw / f"{split}-{part}.txt"):
                yield example
                if (split, part) == fails:
                    raise Killed

        return [functools.partial(one, part) for part in range(2)]

    whole = digits().prepare()
    sealed = (whole / "SHA256").read_text()
    whole.rename(root / "elsewhere")
    with pytest.raises(Killed):
        digits(parts=functools.partial(noting, fails=("valid", 1))).prepare()
    assert digits().state() == "absent"
    assert reads == [("train", 0), ("train", 1), ("valid", 0), ("valid", 1)]
    reads.clear()
    digits(parts=noting).prepare()
    assert reads == [("valid", 1), ("test", 0), ("test", 1)]
    assert (whole / "SHA256").read_text() == sealed


def killed_before_valid(raw, folder, split):
    if split == "valid":
        raise Killed
    return parts(raw, folder, split)


def test_a_preparation_that_goes_on_needs_no_room_for_what_is_written_already(root, monkeypatch):
    with pytest.raises(Killed):
        digits(parts=killed_before_valid).prepare()
    written = sum(path.stat().st_size for path in root.glob("digits/.staging/train/*"))
    disk = recording.shutil.disk_usage(root)._replace(free=digits().layout.space_bytes - written)
    monkeypatch.setattr(recording.shutil, "disk_usage", lambda path: disk)
    digits().prepare()


def test_a_disk_that_fills_up_is_said_and_the_same_command_goes_on(root, monkeypatch):
    array_record_module: Any = import_module("array_record.python.array_record_module")

    class Full(array_record_module.ArrayRecordWriter):
        def close(self):
            raise RuntimeError("write() failed: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(array_record_module, "ArrayRecordWriter", Full)
        with pytest.raises(DataFolderError, match="No space left on device; make room"):
            digits().prepare()
    assert len(digits().rows("train")) == ROWS["train"]


def test_a_process_may_keep_all_shards_open(root, monkeypatch):
    monkeypatch.setattr(recording, "_SHARD_BYTES", 1)
    train = digits().rows("train")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len([*Path("/dev/fd").iterdir()]) + len(train) // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        assert train.take(np.arange(len(train)), None)["x"].tolist() == list(range(len(train)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_shards_than_a_process_may_ever_open_are_an_error_that_names_the_limit(root, monkeypatch):
    train = digits().rows("train")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (20, 40))
    with pytest.raises(UserError, match=r"2 files, .* open 40 at most: raise the hard limit"):
        train.take(np.arange(1), None)


def test_another_version_begins_anew(root):
    with pytest.raises(Killed):
        digits(parts=killed_before_valid).prepare()
    newer = digits(version="2.0.0")
    assert len(newer.rows("train")) == ROWS["train"]
    assert newer.state(verify=True) == "prepared"


def test_what_lies_beside_the_records_is_made_first_and_once(root):
    made = []

    def companions(raw, folder):
        made.append(raw)
        (folder / "pieces.txt").write_text("a\nb\n")

    def needing(raw, folder, split):
        assert (folder / "pieces.txt").is_file()
        return parts(raw, folder, split)

    dataset = digits(companions=companions, parts=needing)
    folder = dataset.prepare()
    assert (folder / "pieces.txt").read_text() == "a\nb\n"
    assert made == [root / "raw" / "digits"]
    (folder / "pieces.txt").write_text("a\nc\n")
    assert dataset.state(verify=True) == "corrupt"
    assert (dataset.twin().prepare() / "pieces.txt").is_file()
    assert made[-1] is None


def test_a_changed_record_is_found(root):
    dataset = digits()
    folder = dataset.prepare()
    shard = next((folder / "test").glob("*.array_record-00001-*"))
    data = shard.read_bytes()
    assert data.count(b"9") > 0
    place = data.rindex(b"9")
    shard.write_bytes(data[:place] + b"8" + data[place + 1 :])
    assert dataset.state() == "prepared"
    assert dataset.state(verify=True) == "corrupt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": {**ROWS, "valid": 21}}, "the raw files give 20 rows of valid, 21 are expected"),
        ({"raw": [RawFile(path="train-0.txt", source="here", sha256="ab" * 32)]}, "published is abab"),
        ({"space_bytes": 10**18}, "its records take about 1,000,000,000 GB more"),
        ({"sha256": "ab" * 32}, "expected ababab"),
    ],
)
def test_what_is_not_as_published_is_refused(root, changes, message):
    dataset = digits(**changes)
    with pytest.raises(UserError, match=message):
        dataset.prepare()
    assert dataset.state() == "absent"


def test_raw_files_of_another_count_are_read_again_when_they_were_put_right(root, monkeypatch):
    monkeypatch.setattr(recording, "_SHARD_BYTES", 1)
    path = root / "raw" / "digits" / "train-1.txt"
    right = path.read_text()
    path.write_text(right + " 99")
    with pytest.raises(UserError, match="give 51 rows of train"):
        digits().prepare()
    path.write_text(right)
    assert digits().rows("train").take(np.arange(50), None)["x"].tolist() == list(range(50))
    assert not [*digits().folder().glob("train/1-*")]


def test_a_count_that_nobody_published_is_taken_as_it_is_found(root):
    assert len(digits(sizes=dict.fromkeys(ROWS)).rows("valid")) == ROWS["valid"]


def test_the_twin_needs_no_files_and_is_another_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    twin = digits().twin()
    assert (twin.name, twin.sha256) == ("digits_twin", UNKNOWN_SHA256)
    first = twin.arrays("train")["x"]
    assert len(first) == 256
    assert first.tolist() != twin.arrays("valid")["x"].tolist()
    assert set(first.tolist()) <= set(range(100))


def test_the_training_rows_can_be_handed_over_alone(root, tmp_path):
    train = (digits().prepare() / "train").rename(tmp_path / "train")
    alone = digits().train_alone(train)
    assert alone.rows("train").take(np.arange(3), None)["square"].tolist() == [0, 1, 4]
    with pytest.raises(FileNotFoundError):
        alone.rows("valid")


def test_a_sample_lies_all_over_the_split(root):
    sample = digits().rows("train").sample(5)
    assert sample.take(np.arange(5), None)["x"].tolist() == [0, 10, 20, 30, 40]
    assert len(digits().rows("valid").sample(1000)) == ROWS["valid"]


def test_augmentation_depends_on_seed_epoch_and_index_alone(root):
    rows = digits().rows("train")

    def noise(seed, position):
        stream = EpochStream(len(rows), seed)
        taken = rows.take(stream.indices(position, 1), stream.keys(position, 1))
        return int(taken["x"][0]), float(taken["noise"][0])

    def all_of_an_epoch(seed, epoch):
        return dict(noise(seed, epoch * 50 + i) for i in range(50))

    first = all_of_an_epoch(7, 0)
    assert len({*first.values()}) == 50
    batch = stretch(rows, EpochStream(50, 7), 3, 8)
    assert dict(zip(batch["x"].tolist(), batch["noise"].tolist(), strict=True)).items() <= first.items()
    for seed, epoch in ((7, 1), (8, 0), (7 + 2**32, 0)):
        assert not {*all_of_an_epoch(seed, epoch).items()} & {*first.items()}
    stream = EpochStream(50, 7)
    index = int(stream.indices(0, 1)[0])
    expected = np.float32(np.random.RandomState([7, 0, 0, index]).standard_normal())
    assert first[index] == expected, "numpy keeps the stream of this generator for ever"


@given(start=st.integers(0, 120), count=st.integers(1, 20))
def test_pairs_that_are_mixed_do_not_depend_on_where_batches_begin(start, count):
    class Pairs:
        """Rows that are their own indices; each is mixed with the other of its pair."""

        arrays, block, together = None, 1, 2

        def __len__(self):
            return 50

        def take(self, indices, keys):
            assert len(indices) % 2 == 0
            return {"x": indices, "other": indices.reshape(-1, 2)[:, ::-1].reshape(-1)}

        def sample(self, rows):
            raise NotImplementedError

    stream = EpochStream(50, 3)
    whole, found = stretch(Pairs(), stream, 0, 140), stretch(Pairs(), stream, start, count)
    for name in ("x", "other"):
        assert found[name].tolist() == whole[name][start : start + count].tolist()


def test_pairs_are_mixed_in_training_alone(root):
    rows = digits(mixed=True).rows("train")
    assert rows.together == 2
    stream = EpochStream(50, 3)
    taken = rows.take(stream.indices(0, 4), stream.keys(0, 4))
    assert taken["square"].tolist() == [int(taken["x"][i]) ** 2 for i in (1, 0, 3, 2)]
    assert rows.take(np.arange(3), None)["square"].tolist() == [0, 1, 4]


def test_blocks_of_rows_give_the_rows_that_single_records_give(root):
    dataset = digits(block=4)
    for split, rows in ROWS.items():
        found = dataset.rows(split)
        assert (len(found), found.block) == (rows, 4)
        order = np.random.RandomState(0).permutation(rows)
        assert found.take(order, None)["square"].tolist() == [x * x for x in order]
    shards = json.loads((dataset.folder() / "train" / "shards.json").read_text())
    assert shards == [[7, 25], [7, 25]]


@given(
    rows=st.integers(1, 700), block=st.integers(2, 6), epoch=st.integers(0, 3), seed=st.integers(0, 2**64 - 1),
    cut=st.integers(0, 700),
)  # fmt: skip
def test_an_epoch_of_blocks_holds_every_row_once(rows, block, epoch, seed, cut):
    stream = EpochStream(rows, seed, block=block)
    cut = min(cut, rows - 1)
    pieces = [stream.indices(epoch * rows, cut)] if cut else []
    found = np.concatenate([*pieces, stream.indices(epoch * rows + cut, rows - cut)])
    assert sorted(found.tolist()) == list(range(rows))
    assert found.tolist() == stream.indices(epoch * rows, rows).tolist()


def test_a_batch_of_blocks_reads_few_of_them():
    stream = EpochStream(10**6, 0, block=100)
    batch = stream.indices(3 * 6400, 6400)
    assert len({*(batch // 100).tolist()}) == 64
    assert (np.diff(batch) != 1).mean() > 0.9


def test_four_thousand_million_rows_can_be_streamed():
    stream = EpochStream(4_195_197_692, 1, block=65_536)
    batch = stream.indices(4_195_197_692 - 4, 8)
    assert batch.dtype == np.int64
    assert batch.max() < 4_195_197_692
    assert batch.min() >= 0


@pytest.mark.slow
def test_batches_are_the_same_whatever_makes_them_and_from_wherever_they_begin(root):
    rows = digits(mixed=True).rows("train")
    stream = EpochStream(len(rows), 5)

    def batches(workers, first, count):
        made = from_host(rows, stream, Mesh.local(), 7, first=first, workers=workers)
        found = [{name: np.asarray(array).tolist() for name, array in next(made).items()} for _ in range(count)]
        made.close()
        return found

    whole = batches(0, 0, 9)
    assert batches(2, 0, 9) == whole
    assert batches(1, 4, 5) == whole[4:]


def test_what_workers_are_sent_can_be_sent(root):
    import cloudpickle

    rows, stream = digits(mixed=True).rows("train"), EpochStream(50, 2**40, block=2)
    rows.take(np.arange(2), None)
    sent_rows, sent_stream = cloudpickle.loads(cloudpickle.dumps((rows, stream)))
    assert sent_stream.indices(13, 60).tolist() == stream.indices(13, 60).tolist()
    keys = stream.keys(0, 2)
    np.testing.assert_equal(sent_rows.take(np.arange(2), keys), rows.take(np.arange(2), keys))


@pytest.mark.usefixtures("keep_programs")
def test_a_trial_on_records_is_that_on_arrays_of_the_same_rows_and_can_be_taken_up(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("timetrial.machine.cores", lambda: 1)
    records = toy_records()
    splits = {split: records.arrays(split) for split in ROWS}
    short = rules(budget=128, eval_every=64)

    def evals(data, **options):
        record = run(tmp_path, ruleset=short, workload=toy_workload(data=data, train_eval_rows=256), **options)
        return [(line.step, dict(line.metrics)) for line in record.evals], record

    of_records, whole = evals(records)
    of_arrays, _ = evals(InMemory.holding(splits, like=records))
    for (step, found), (expected_step, expected) in zip(of_records, of_arrays, strict=True):
        assert (step, found) == (expected_step, pytest.approx(expected, rel=1e-6))
    assert whole.evals[-1].data_seconds > 0
    out = tmp_path / "parted"
    end = evals(records, out=out, leave=lambda: True)[1].end
    assert end is not None
    assert end.status == "interrupted"
    resumed, record = evals(records, out=out)
    assert record.resumes
    assert resumed == of_records
