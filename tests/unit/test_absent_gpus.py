"""What a step needs of a GPU that is not here: XLA compiles for it all the same."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from timetrial.cli import main


def test_without_jax_s_cuda_plugin_the_user_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("jax_plugins") else find(name)
    )
    assert main(["doctor", "--memory", "lobes", "--gpu", "h100-80gb"]) == 2
    assert "pip install --no-deps jax-cuda12-plugin==" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "h100-80gb"], "--gpu is for --memory"),
        (["--memory", "lobes", "--devices", "8"], "--devices needs --gpu"),
        (["--memory", "lobes", "--gpu", "h100-80gb", "--devices", "0"], "--devices must be at least 1"),
    ],
)
def test_options_that_would_say_nothing_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err


def plan(gpu: str, *options: str) -> dict[str, int]:
    """Bytes of one device for a step of AdamW on 512 rows of lobes, on 8 of these."""
    if importlib.util.find_spec("jax_plugins") is None or importlib.util.find_spec("jax_plugins.xla_cuda12") is None:
        pytest.skip("needs jax's CUDA plugin")
    words = ["--memory", "lobes", "--batch-sizes", "512", "--gpu", gpu, "--devices", "8", "--format", "json", *options]
    done = subprocess.run(
        [sys.executable, "-m", "timetrial", "doctor", *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    found = json.loads(done.stdout)
    assert (found["device_count"], found["device_memory"]) == (8, 63733825536)
    return found["bytes"][0]


def test_a_step_is_planned_for_gpus_that_are_not_here_and_share_its_batch():
    found = plan("h100-80gb")
    image = 3 * 32 * 32 * 1 + 4
    assert found["batch"] == 64 * image
    assert found["params"] < found["peak"] < 2**30
    assert plan("h100-80gb", "--remat")["temporaries"] < found["temporaries"]
