"""Workloads and submissions are found by name, without importing what is only listed."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from shelf import Shelf

from timetrial import registry
from timetrial.errors import UserError

SUBMISSION = '"""A submission."""\nraise RuntimeError("listing must not import")\n'


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `company` with a submission folder and a submission module, offered through entry points."""
    site = tmp_path / "site"
    for file in ("company/__init__.py", "company/folder/__init__.py", "company/folder/submission.py", "company/one.py"):
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(SUBMISSION, encoding="utf-8")
    points = EntryPoints(
        EntryPoint(name, value, registry.ENTRY_POINTS)
        for name, value in {"folder": "company.folder", "one": "company.one", "lost": "company.lost.x"}.items()
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points.select(group=group))
    return site


def test_a_folder_is_a_workload_when_it_is_a_package(shelf: Shelf):
    shelf.add_workload("beta", "")
    shelf.add_workload("alpha", "")
    (shelf.root / "workloads" / "notes").mkdir()
    assert registry.workload_names() == ["alpha", "beta"]


def test_a_workload_is_loaded_by_its_folder_s_name(shelf: Shelf):
    shelf.add_workload("alpha", "from toys import toy_workload\nWORKLOAD = toy_workload(name='alpha')\n")
    assert registry.load_workload("alpha").name == "alpha"


def test_a_workload_whose_name_is_not_its_folder_s_is_refused(shelf: Shelf):
    shelf.add_workload("alpha", "from toys import toy_workload\nWORKLOAD = toy_workload(name='other')\n")
    with pytest.raises(UserError, match="'alpha' holds a workload named 'other'"):
        registry.load_workload("alpha")


def test_an_unknown_workload_is_answered_with_the_nearest(shelf: Shelf):
    shelf.add_workload("scripture", "")
    with pytest.raises(UserError, match="no workload 'scriptur'; did you mean 'scripture'"):
        registry.load_workload("scriptur")


def test_every_shipped_workload_and_submission_has_a_folder_of_its_own():
    assert all((registry.shipped("workloads") / name).is_dir() for name in registry.workload_names())
    assert all(folder.name == name for name, folder in registry.submission_folders().items())


def test_a_submission_is_found_by_name_file_and_folder(shelf: Shelf):
    path = shelf.add_submission("sgd", SUBMISSION)
    assert registry.find_submission("sgd") == path
    assert registry.find_submission(str(path)) == path
    assert registry.find_submission(str(path.parent)) == path


def test_a_name_wins_over_a_folder_of_that_name(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    shipped = shelf.add_submission("sgd", SUBMISSION)
    (shelf.root / "sgd").mkdir()
    (shelf.root / "sgd" / "submission.py").write_text("", encoding="utf-8")
    monkeypatch.chdir(shelf.root)
    assert registry.find_submission("sgd") == shipped
    assert registry.find_submission("./sgd") == Path("sgd/submission.py")


def test_a_folder_without_a_submission_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(UserError, match=r"no submission\.py in .*timetrial new submission"):
        registry.find_submission(str(tmp_path))


def test_an_unknown_submission_is_answered_with_the_nearest(shelf: Shelf):
    shelf.add_submission("adamw", SUBMISSION)
    with pytest.raises(UserError, match="did you mean 'adamw'"):
        registry.find_submission("adamv")


def test_installed_submissions_are_found_without_being_imported(shelf: Shelf, installed: Path):
    shelf.add_submission("sgd", SUBMISSION)
    assert registry.submission_names() == ["folder", "lost", "one", "sgd"]
    assert registry.find_submission("folder") == installed / "company/folder/submission.py"
    assert registry.find_submission("one") == installed / "company/one.py"
    assert "company" not in sys.modules


@pytest.mark.usefixtures("shelf", "installed")
def test_an_entry_point_that_leads_nowhere_is_a_clear_error():
    with pytest.raises(UserError, match=r"'lost' is installed as 'company\.lost\.x'"):
        registry.find_submission("lost")
