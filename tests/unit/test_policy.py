"""Where isolation cannot be had, the user is told before anything runs."""

from pathlib import Path

import pytest

from timetrial.errors import UserError
from timetrial.isolation import policy
from timetrial.isolation.policy import Mounts, Policy, command, require


def install(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_bubblewrap_that_the_system_does_not_let_work_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path / "bin", "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    for name in ("setpriv", "prlimit"):
        install(tmp_path / "bin", name, "exit 0")
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


def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, isolation: str, gpus: tuple[str, ...]) -> str:
    """The command for a process that has these GPUs, as one line."""
    monkeypatch.setattr(policy, "device_files", lambda gpus: [Path("/dev/nvidia3"), Path("/dev/nvidiactl")])
    monkeypatch.setattr(policy, "_tool", lambda name, message: name)
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.75")
    limits = Policy(memory_bytes=1 << 30, file_bytes=1 << 20, seconds=60.0)
    mounts = Mounts(submission=tmp_path, exchange=tmp_path / "exchange", gpus=gpus)
    found, _ = command(isolation, limits, mounts, ["-m", "x"], name="n")  # pyright: ignore[reportArgumentType]
    return " ".join(found)


@pytest.mark.parametrize(
    ("isolation", "there"),
    [
        (
            "sandbox",
            ["--dev-bind /dev/nvidia3 /dev/nvidia3", "--dev-bind /dev/nvidiactl /dev/nvidiactl", "--ro-bind /sys /sys",
             "--setenv CUDA_VISIBLE_DEVICES GPU-a,GPU-b", "--setenv XLA_CLIENT_MEM_FRACTION 0.75",
             "--setenv JAX_PLATFORMS cuda,cpu"],
        ),
        (
            "docker",
            ['--gpus "device=GPU-a,GPU-b"', "--env XLA_CLIENT_MEM_FRACTION=0.75", "--env JAX_PLATFORMS=cuda,cpu",
             "--env NVIDIA_DRIVER_CAPABILITIES=compute,utility"],
        ),
    ],
)  # fmt: skip
def test_a_process_that_trains_on_gpus_has_those_and_the_trainer_s_share_of_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str, there: list[str]
):
    given = words(monkeypatch, tmp_path, isolation, ("GPU-a", "GPU-b"))
    assert [text for text in there if text not in given] == []
    without = words(monkeypatch, tmp_path, isolation, ())
    assert "JAX_PLATFORMS" in without
    assert not any(text in without for text in ("nvidia", "cuda", "CUDA", "GPU", "/sys"))
