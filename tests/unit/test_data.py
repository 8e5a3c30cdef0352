"""A data set is prepared once, whatever happens meanwhile, and is never taken for another."""

import os
import re
import resource
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_data
from tiny_data import tiny, tiny_splits

from timetrial.data import DataFolderError, InMemory, hash_splits
from timetrial.errors import UserError

STAGES = ["generating", "writing array_record", "materialising", "verifying"]
WAITING = "waiting for another process that prepares it"
Preparing = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def preparing(tmp_path: Path) -> Iterator[Preparing]:
    """Starts a process that prepares the tiny data set and stops at a stage until a line comes."""
    started: list[subprocess.Popen[str]] = []

    def start(stop_at: str) -> "subprocess.Popen[str]":
        command = [sys.executable, tiny_data.__file__, str(tmp_path), stop_at]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def refusing():
    raise AssertionError("generated once more")


def left_in(root: Path) -> set[str]:
    return {path.name for path in (root / "tiny").iterdir()}


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_prepared_rows_are_the_generated_ones_in_their_order(tmp_path):
    dataset = tiny()
    assert dataset.state(tmp_path) == "absent"
    dataset.prepare(tmp_path)
    for split, arrays in tiny_splits().items():
        found = dataset.arrays(split, tmp_path)
        assert found.keys() == arrays.keys()
        for name in arrays:
            assert found[name].dtype == arrays[name].dtype
            np.testing.assert_array_equal(found[name], arrays[name])
    assert dataset.state(tmp_path, verify=True) == "prepared"
    assert left_in(tmp_path) == {".lock", "1.0.0"}


def test_a_prepared_data_set_is_not_generated_again(tmp_path):
    folder = tiny().prepare(tmp_path)
    assert tiny(refusing).prepare(tmp_path, verify=True) == folder


def test_every_stage_is_told_and_rows_are_counted(tmp_path):
    told: list[tuple[str, int, int | None]] = []
    tiny().prepare(tmp_path, watch=lambda *event: told.append(event))
    assert [stage for stage, rows, _ in told if rows == 0] == STAGES
    total = sum(tiny_data.ROWS.values())
    blocks = [(0, total), (1024, total), (2048, total), (2500, total), (3524, total)]
    assert [event[1:] for event in told if event[0] == "writing array_record"] == blocks
    assert [event[1:] for event in told if event[0] == "materialising"] == blocks


def test_rows_are_let_go_before_they_are_read_back(tmp_path):
    alive: list[weakref.ref[np.ndarray]] = []

    def generate():
        splits = tiny_splits()
        alive.extend(weakref.ref(array) for arrays in splits.values() for array in arrays.values())
        return splits

    def watch(stage: str, rows: int, of: int | None) -> None:
        if stage == "materialising":
            assert not any(array() is not None for array in alive)

    tiny(generate).prepare(tmp_path, watch=watch)
    assert len(alive) == 9


def test_of_two_processes_one_prepares_and_the_other_waits_and_finds_it_prepared(tmp_path, preparing: Preparing):
    first = preparing("generating")
    assert first.stdout is not None
    assert first.stdout.readline() == "generating\n"
    second = preparing("")
    assert second.stdout is not None
    assert second.stdout.readline() == f"{WAITING}\n"
    told, _ = first.communicate("go on\n")
    assert (told.splitlines(), first.returncode) == (STAGES[1:], 0)
    told, _ = second.communicate()
    assert (told, second.returncode) == ("", 0)
    assert tiny().state(tmp_path, verify=True) == "prepared"


def test_a_killed_process_frees_the_data_set_and_its_leavings_are_cleared(tmp_path, preparing: Preparing):
    killed = preparing("materialising")
    assert killed.stdout is not None
    while killed.stdout.readline() != "materialising\n":
        assert killed.poll() is None
    assert ".staging" in left_in(tmp_path)
    waiting: list[str] = []
    killed.kill()
    killed.wait()
    tiny().prepare(tmp_path, watch=lambda stage, rows, of: waiting.append(stage))
    assert WAITING not in waiting
    assert left_in(tmp_path) == {".lock", "1.0.0"}
    assert tiny().state(tmp_path, verify=True) == "prepared"


def test_an_interrupted_preparation_keeps_nothing(tmp_path):
    def watch(stage: str, rows: int, of: int | None) -> None:
        if stage == "verifying":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny().prepare(tmp_path, watch=watch)
    assert left_in(tmp_path) == {".lock"}


@pytest.mark.parametrize("at", [-1, 20, 3], ids=["rows", "header", "magic"])
def test_a_changed_byte_is_found_by_reading_and_repaired(tmp_path, at):
    folder = tiny().prepare(tmp_path)
    damage(folder / "valid" / "image.npy", at)
    assert tiny().state(tmp_path) == "prepared"
    assert tiny().state(tmp_path, verify=True) == "corrupt"
    tiny().prepare(tmp_path, verify=True)
    assert tiny().state(tmp_path, verify=True) == "prepared"


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: os.truncate(folder / "train" / "image.npy", 1000),
        lambda folder: (folder / "test" / "label.npy").unlink(),
        lambda folder: (folder / "test" / "label.npy").rename(folder / "test" / "other.npy"),
        lambda folder: (folder / "SHA256").unlink(),
        lambda folder: (folder / "SHA256").write_text(f"{tiny_data.tiny_sha256()}\n"),
    ],
    ids=["cut short", "a field gone", "a field renamed", "no seal", "no sizes"],
)
def test_an_incomplete_data_set_is_seen_without_reading_it_and_made_anew(tmp_path, harm):
    harm(tiny().prepare(tmp_path))
    assert tiny().state(tmp_path) == "incomplete"
    assert set(tiny().arrays("test", tmp_path)) == {"image", "weight", "label"}
    assert tiny().state(tmp_path, verify=True) == "prepared"


def test_rows_of_another_hash_are_refused_and_not_kept(tmp_path):
    wrong = tiny(sha256="f" * 64, packages={"numpy": np.__version__})
    message = f"data set tiny 1.0.0: its SHA-256 is {tiny_data.tiny_sha256()[:16]}…, expected ffffffffffffffff…"
    with pytest.raises(UserError, match=f"{re.escape(message)}; check the versions of numpy"):
        wrong.prepare(tmp_path)
    assert left_in(tmp_path) == {".lock"}


def test_prepared_rows_of_another_hash_are_not_taken_for_the_data_set(tmp_path):
    tiny().prepare(tmp_path)
    assert tiny(sha256="f" * 64).state(tmp_path) == "incomplete"


def test_all_missing_packages_and_files_are_named_with_one_command_before_anything_is_made(tmp_path):
    packages = {"no-such-package": "1.2", "numpy": "0.0.1", "pytest": pytest.__version__}
    dataset = tiny(refusing, packages=packages, needs=lambda: "no speech.ogg: apt-get install speech")
    with pytest.raises(UserError) as refused:
        dataset.prepare(tmp_path)
    assert "no-such-package is not installed" in str(refused.value)
    assert f"numpy is {np.__version__} installed" in str(refused.value)
    assert "pip install no-such-package==1.2 numpy==0.0.1 (" in str(refused.value)
    assert str(refused.value).endswith("; no speech.ogg: apt-get install speech")
    assert list(tmp_path.iterdir()) == []


def test_what_a_prepared_data_set_came_from_may_be_gone(tmp_path):
    folder = tiny().prepare(tmp_path)
    assert tiny(refusing, packages={"gone": "1"}, needs=lambda: "gone").prepare(tmp_path) == folder


def test_a_root_that_is_no_folder_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match=r"cannot keep data in .*file/tiny: Not a directory; make room"):
        tiny().prepare(tmp_path / "file")


@pytest.mark.parametrize("stage", ["writing array_record", "materialising"])
def test_a_disk_that_refuses_is_one_message_and_nothing_is_kept(tmp_path, stage):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def watch(begun: str, rows: int, of: int | None) -> None:
        if begun == stage:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limit[1]))

    try:
        with pytest.raises(DataFolderError) as refused:
            tiny().prepare(tmp_path, watch=watch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert re.fullmatch("cannot keep data in .*: .*File too large.*; make room .*", str(refused.value))
    assert left_in(tmp_path) == {".lock"}


def test_rows_in_memory_are_always_prepared_and_never_written(tmp_path):
    dataset = InMemory.holding(tiny_splits(), like=tiny(refusing, sha256="", packages={"gone": "1"}))
    assert dataset.state(tmp_path, verify=True) == "prepared"
    dataset.prepare(tmp_path, verify=True)
    np.testing.assert_array_equal(dataset.arrays("test", tmp_path)["label"], np.arange(7))
    assert list(tmp_path.iterdir()) == []


def test_the_hash_is_of_values_and_not_of_how_they_lie_in_memory():
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    one = hash_splits({"train": {"x": array}})
    for same in (np.asfortranarray(array), array.astype(">i4"), np.repeat(array, 2, axis=1)[:, ::2]):
        assert hash_splits({"train": {"x": same}}) == one
    for other in (array + 1, array.T, array.astype(np.int64), array.reshape(4, 3)):
        assert hash_splits({"train": {"x": other}}) != one
    assert hash_splits({"train": {"x": array[:0]}}) != hash_splits({"train": {"x": array[:, :0]}})
