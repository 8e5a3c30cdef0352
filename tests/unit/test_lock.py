"""The locks hold what a workload is and does; `timetrial freeze` writes them and checks that they hold."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from shelf import Shelf
from toys import toy_workload

from timetrial import lock
from timetrial.cli import main
from timetrial.errors import UserError

SOURCE = "from toys import toy_workload\nWORKLOAD = toy_workload(name={name!r}, default_batch_size={batch})\n"


def add(shelf: Shelf, name: str, batch: int = 16) -> Path:
    sys.modules.pop(f"timetrial.workloads.{name}", None)
    return shelf.add_workload(name, SOURCE.format(name=name, batch=batch))


def test_the_source_hash_changes_with_names_and_bytes_but_not_with_prose(tmp_path: Path):
    (tmp_path / "data.py").write_text("a = 1\n")
    hashes = [lock.source_sha256(tmp_path)]
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "runs.csv").write_text("1")
    assert lock.source_sha256(tmp_path) == hashes[0]
    (tmp_path / "data.py").write_text("a = 2\n")
    hashes.append(lock.source_sha256(tmp_path))
    (tmp_path / "data.py").rename(tmp_path / "data2.py")
    hashes.append(lock.source_sha256(tmp_path))
    assert len(set(hashes)) == 3


def test_the_fingerprint_is_what_numpy_computes_by_hand():
    workload = toy_workload()
    (params, _), batch = workload.init(jax.random.split(jax.random.key(0))[0]), workload.random_batch(16, 0)
    x, label = batch["x"].astype(np.float64), batch["label"]
    logits = x @ np.asarray(params["dense"]["kernel"], np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = (probabilities - np.eye(4)[label]) / 16
    expected = {
        "train_loss": -np.log(probabilities[np.arange(16), label]).mean(),
        "loss": -np.log(probabilities[np.arange(16), label]).mean(),
        "gradient_norm": np.sqrt(np.sum((x.T @ residual) ** 2) + np.sum(residual.sum(axis=0) ** 2)),
        "error_rate": np.mean(np.argmax(logits, axis=1) != label),
    }
    assert lock.fingerprint(workload) == pytest.approx(expected, rel=1e-5)


def test_the_fingerprint_sees_a_change_of_the_loss_that_no_metric_shows():
    workload = toy_workload()

    def weaker(outputs: Any, batch: Any, *, label_smoothing: Any = 0.0) -> tuple[Any, Any]:
        losses, terms = workload.loss(outputs, batch, label_smoothing=label_smoothing)
        return losses * 0.999, terms

    old, new = ({"fingerprint": lock.fingerprint(w)} for w in (workload, dataclasses.replace(workload, loss=weaker)))
    said = lock.changes({**old, "fingerprint_tolerance": 1e-4}, {**new, "fingerprint_tolerance": 1e-4})
    assert [line.split()[5] for line in said] == ["gradient_norm", "train_loss"]


def test_a_fingerprint_within_its_tolerance_and_a_nan_that_stays_nan_are_no_change():
    old = {"fingerprint_tolerance": 1e-4, "fingerprint": {"loss": 1.0, "auc": float("nan")}}
    near = {"fingerprint_tolerance": 1e-4, "fingerprint": {"loss": 1.00005, "auc": float("nan")}}
    far = {"fingerprint_tolerance": 1e-4, "fingerprint": {"loss": 1.0002, "auc": 0.0}}
    assert lock.changes(old, near) == []
    assert len(lock.changes(old, far)) == 2


def test_a_table_read_back_is_the_table_written(shelf: Shelf):
    table = lock.describe(toy_workload(variant_of="base", task='quotes " and \\ and ö'), add(shelf, "alpha").parent) | {
        "fingerprint": {"nan": float("inf"), "small": 1e-30, "third": 1 / 3}
    }
    lock.write_tables({"alpha": table}, set(), shelf.root / "workloads")
    assert lock.read_lock()["alpha"] == table
    assert table["parameters"] == 36
    assert table["parameter_arrays"] == 2
    assert (table["train_examples"], table["valid_examples"], table["test_examples"]) == (256, 100, 100)


def test_freezing_another_workload_leaves_the_bytes_of_the_first(shelf: Shelf):
    add(shelf, "beta")
    assert main(["freeze"]) == 0
    path = shelf.root / "workloads" / lock.LOCK_NAME
    path.write_text(path.read_text().replace("track = ", "track    = "))
    before = path.read_text().split("[beta]")[1].strip()
    add(shelf, "alpha")
    add(shelf, "gamma")
    assert main(["freeze"]) == 0
    assert list(lock.read_lock()) == ["alpha", "beta", "gamma"]
    assert path.read_text().split("[beta]")[1].split("[gamma]")[0].strip() == before


def test_check_names_what_changed_and_freeze_keeps_the_lock_until_told(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
):
    add(shelf, "alpha")
    assert main(["freeze"]) == 0
    assert main(["freeze", "--check"]) == 0
    assert "1 lock holds" in capsys.readouterr().out
    locked = lock.read_lock()
    add(shelf, "alpha", batch=32)
    capsys.readouterr()
    for verb in (["freeze", "--check"], ["freeze"]):
        assert main(verb) == 1
        said = capsys.readouterr().err
        assert "alpha: default_batch_size: 16 -> 32" in said
        assert "alpha: source_sha256" in said
        assert "`timetrial freeze alpha`" in said
        assert lock.read_lock() == locked
    assert main(["freeze", "alpha"]) == 0
    assert main(["freeze", "--check"]) == 0


def test_check_finds_a_workload_without_a_lock_and_a_lock_without_a_workload(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
):
    folder = add(shelf, "alpha").parent
    assert main(["freeze"]) == 0
    folder.rename(folder.parent / "omega")
    add(shelf, "omega")
    assert main(["freeze", "--check"]) == 1
    said = capsys.readouterr().err
    assert "alpha: its folder is gone" in said
    assert "omega: has no lock" in said
    assert main(["freeze"]) == 0
    assert list(lock.read_lock()) == ["omega"]


@pytest.mark.usefixtures("shelf")
def test_freezing_an_unknown_workload_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert main(["freeze", "nothing"]) == 2
    assert "no workload 'nothing'" in capsys.readouterr().err


def test_a_lock_that_does_not_parse_says_where(shelf: Shelf):
    (shelf.root / "workloads" / lock.LOCK_NAME).write_text("[alpha\n")
    with pytest.raises(UserError, match=r"LOCK\.toml: .*line 1"):
        lock.read_lock()
