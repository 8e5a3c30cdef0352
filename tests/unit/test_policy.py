"""Where isolation cannot be had, the user is told before anything runs."""

from pathlib import Path

import pytest

from timetrial.errors import UserError
from timetrial.isolation.policy import require


def command(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_bubblewrap_that_the_system_does_not_let_work_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command(tmp_path / "bin", "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    for name in ("setpriv", "prlimit"):
        command(tmp_path / "bin", name, "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    with pytest.raises(UserError, match=r"--sandbox needs .*No permissions to create new namespace.*--docker"):
        require("sandbox")


@pytest.mark.parametrize(("isolation", "tool"), [("sandbox", "bubblewrap"), ("docker", "Docker")])
def test_a_tool_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str, tool: str):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UserError, match=f"--{isolation} needs {tool}"):
        require(isolation)  # pyright: ignore[reportArgumentType]


def test_no_isolation_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    require("none")
