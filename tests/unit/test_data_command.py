"""`timetrial data`: what it prepares and shows, and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from shelf import Shelf

from timetrial.cli import main

WORKLOAD = """\
from dataclasses import replace
from pathlib import Path

from tiny_data import tiny, tiny_splits
from toys import toy_workload

def generate():
    if Path({stop!r}).exists():
        raise KeyboardInterrupt
    return tiny_splits()

WORKLOAD = replace(toy_workload(), name={name!r}, variant_of={variant_of!r}, data=tiny(generate, **{changes!r}))
"""


class Track:
    """Workloads on data sets of a few rows, and `timetrial data` with its output."""

    def __init__(self, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self.stop = shelf.root / "data", shelf.root / "stop"
        self._shelf, self._capsys = shelf, capsys

    def add(self, workload: str, variant_of: str | None = None, **changes: Any) -> None:
        source = WORKLOAD.format(name=workload, variant_of=variant_of, changes=changes, stop=str(self.stop))
        self._shelf.add_workload(workload, source)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = main(["data", *arguments])
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err

    def json(self, *arguments: str) -> tuple[int, Any]:
        code, out, _ = self(*arguments, "--format", "json")
        return code, json.loads(out)


@pytest.fixture
def track(shelf: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Track:
    monkeypatch.setenv("TIMETRIAL_DATA", str(shelf.root / "data"))
    return Track(shelf, capsys)


def test_stages_are_lines_where_there_is_no_terminal_and_a_second_call_does_nothing(track: Track):
    track.add("alpha")
    code, out, err = track("prepare")
    stages = ("generating", "writing array_record", "materialising", "verifying")
    assert out.splitlines()[:4] == [f"tiny 1.0.0: {stage}" for stage in stages]
    assert out.splitlines()[4].startswith("tiny 1.0.0: prepared in ")
    assert out.splitlines()[5:] == [f"1 of 1 data sets are prepared in {track.data}"]
    assert (code, err) == (0, "")
    assert track("prepare")[1].startswith("tiny 1.0.0: already prepared\n1 of 1 ")


def test_a_data_set_of_several_workloads_is_prepared_once_and_variants_add_none(track: Track):
    track.add("alpha")
    track.add("beta")
    track.add("alpha_wide", variant_of="alpha", name="unused")
    code, found = track.json("prepare")
    assert (code, found["folder"], found["pip"]) == (0, str(track.data), [])
    assert [(end["dataset"], end["workloads"], end["made"]) for end in found["datasets"]] == [
        ("tiny", ["alpha", "beta"], True)
    ]
    assert [path.name for path in track.data.iterdir()] == ["tiny"]
    assert [end["dataset"] for end in track.json("status", "alpha_wide")[1]["datasets"]] == ["unused"]


def test_what_is_missing_is_listed_together_and_stops_no_other_data_set(track: Track):
    track.add("alpha", name="first", packages={"no-such-package": "1"})
    track.add("beta", name="second", packages={"another-absent-one": "2"})
    track.add("gamma", name="third")
    code, out, err = track("prepare")
    assert code == 1
    assert "third 1.0.0: prepared in " in out
    assert f"1 of 3 data sets are prepared in {track.data}" in out
    assert [line.partition(" is not installed: ")[0] for line in err.splitlines()[:2]] == [
        "not prepared: data set first: no-such-package",
        "not prepared: data set second: another-absent-one",
    ]
    assert err.splitlines()[2:] == [
        "all packages that are missing: pip install another-absent-one==2 no-such-package==1"
    ]
    code, found = track.json("prepare")
    assert (code, found["pip"]) == (1, ["another-absent-one==2", "no-such-package==1"])
    assert [bool(end["error"]) for end in found["datasets"]] == [True, True, False]


def test_an_interrupted_call_goes_on_where_it_was(track: Track):
    track.add("alpha", name="first")
    track.add("beta", name="second")
    assert track("prepare", "alpha")[0] == 0
    track.stop.touch()
    code, out, err = track("prepare")
    assert (code, err) == (130, "timetrial: interrupted\n")
    assert out.splitlines() == ["first 1.0.0: already prepared", "second 1.0.0: generating"]
    track.stop.unlink()
    _, found = track.json("prepare")
    assert [end["made"] for end in found["datasets"]] == [False, True]


def test_status_says_what_there_is_and_what_is_needed(track: Track):
    track.add("alpha", name="first")
    track.add("beta", name="second", packages={"no-such-package": "1"}, licence="CC-BY-4.0")
    assert track("prepare", "alpha")[0] == 0
    code, found = track.json("status")
    assert code == 0
    first, second = found["datasets"]
    size = first.pop("bytes")
    assert size == sum(path.stat().st_size for path in (track.data / "first" / "1.0.0").rglob("*") if path.is_file())
    assert first == {
        "dataset": "first",
        "version": "1.0.0",
        "workloads": ["alpha"],
        "state": "prepared",
        "rows": {"train": 2500, "valid": 1024, "test": 7},
        "packages": [],
        "needs": None,
        "licence": "CC0",
    }
    assert (second["state"], second["rows"], second["bytes"]) == ("absent", None, 0)
    assert second["packages"] == [{"name": "no-such-package", "needed": "1", "installed": None}]
    _, out, _ = track("status")
    assert "no-such-package 1: not installed" in out
    assert "2,500" in out
    assert "`timetrial data prepare` obtains it" in out


def test_status_shows_files_that_pip_cannot_bring(track: Track, monkeypatch: pytest.MonkeyPatch):
    track.add("alpha")
    from timetrial.registry import load_workload

    need = "no speech.ogg: apt-get install speech"
    object.__setattr__(load_workload("alpha").data, "needs", lambda: need)
    assert track.json("status")[1]["datasets"][0]["needs"] == need
    assert f"tiny: {need}" in track("status")[1].splitlines()
    code, _, err = track("prepare")
    assert (code, err) == (1, f"not prepared: data set tiny: {need}\n")


def test_damaged_data_are_a_finding_of_status_and_prepare_repairs_them(track: Track):
    track.add("alpha")
    track("prepare")
    path = track.data / "tiny" / "1.0.0" / "test" / "label.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert track("status")[0] == 0
    code, out, err = track("status", "--verify")
    assert code == 1
    assert "corrupt" in out
    assert err == "tiny: `timetrial data prepare --verify` makes anew what is damaged\n"
    assert track.json("prepare", "--verify")[1]["datasets"][0]["made"]
    assert track("status", "--verify")[0] == 0


@pytest.mark.parametrize("verb", ["prepare", "status"])
def test_an_unknown_workload_is_wrong_usage(track: Track, verb: str):
    track.add("alpha")
    code, out, err = track(verb, "alpho")
    assert (code, out) == (2, "")
    assert "no workload 'alpho'; did you mean 'alpha'?" in err


def test_a_folder_that_cannot_be_written_ends_the_command_with_one_message(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    track.add("alpha", name="first")
    track.add("beta", name="second")
    (tmp_path / "file").touch()
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path / "file"))
    code, out, err = track("prepare")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "set TIMETRIAL_DATA to another folder" in err


@pytest.mark.parametrize("name", ["prepare", "status"])
def test_the_help_of_each_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["data", name, "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert printed.splitlines()[-1].startswith(f"  timetrial data {name} ")
    assert "helpfull" not in printed
