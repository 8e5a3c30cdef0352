"""A Docker image that does not hold what this installation holds is refused, and the message says what to do."""

import json
import os
from pathlib import Path

import pytest

from timetrial.errors import UserError
from timetrial.isolation.image import differing, installed, require_image


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `docker` answers with the file `said`, or fails with the file `failed`."""
    script = tmp_path / "docker"
    script.write_text(f"#!/bin/sh\ncat {tmp_path}/said && exit\ncat {tmp_path}/failed >&2\nexit 125\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_an_image_that_holds_the_same_is_taken(docker: Path):
    (docker / "said").write_text(json.dumps(installed()))
    require_image()


def test_an_image_with_another_package_is_refused_by_name_and_version(docker: Path):
    ours = installed()
    (docker / "said").write_text(json.dumps({**ours, "jax": "0.0.1"}))
    with pytest.raises(UserError, match=rf"'timetrial'.* jax 0\.0\.1, here {ours['jax']}; `make docker`"):
        require_image()


def test_what_docker_says_is_passed_on(docker: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIMETRIAL_IMAGE", "mine:2")
    (docker / "failed").write_text(
        "docker: Cannot connect to the Docker daemon.\n\nRun 'docker run --help' for more information\n"
    )
    with pytest.raises(UserError, match=r"'mine:2': Cannot connect to the Docker daemon\.; `make docker`"):
        require_image()


def test_two_installations_differ_in_what_is_missing_and_in_their_source():
    ours = {"jax": "1", "flax": "2", "source of timetrial": "a"}
    assert differing(ours, ours) == ""
    assert (
        differing(ours, {"jax": "1", "source of timetrial": "b"}) == "flax missing, here 2; another source of timetrial"
    )
