"""What a process that runs a submission may see, write and use, and the commands that hold it to that.

Bubblewrap and Docker are given one policy: no network; nothing to write but private temporary files and one file for
arrays; the submission and the training rows, read-only, and no other data; no privileges; bounded memory, processes
and time. Under bubblewrap, which limits neither, memory, processes and file sizes are limited by process.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from timetrial.errors import UserError
from timetrial.gpus import MEMORY, VISIBLE, device_files
from timetrial.isolation.image import image, require_image

Isolation = Literal["none", "sandbox", "docker"]
SUBMISSION = "/submission"
TRAIN = "/train"
EXCHANGE = "/exchange"
"""Where the child finds the submission, the training rows and the file for arrays."""
_TRANSIENT_USERS = range(61184, 65520)
"""User ids that systemd sets aside for users that exist as long as a process does."""
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache", "/etc/alternatives")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits of one process."""

    memory_bytes: int
    file_bytes: int
    """Of the file for arrays, and of each temporary file."""
    seconds: float
    """Of wall time, after which it is killed."""
    processes: int = 512
    """Processes and threads."""
    scratch_bytes: int = 1 << 30
    """Of all temporary files together."""


@dataclass(frozen=True, kw_only=True)
class Mounts:
    """What a process sees of this machine, beside its Python."""

    submission: Path
    exchange: Path
    train: Path | None = None
    """None where the process needs no data."""
    code: Sequence[Path] = field(default_factory=tuple)
    """More folders to import from, for tests."""
    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES names them."""

    def read_only(self) -> dict[str, Path]:
        found = {SUBMISSION: self.submission}
        if self.train is not None:
            found[TRAIN] = self.train
        return found


def command(
    isolation: Isolation, policy: Policy, mounts: Mounts, module: Sequence[str], *, name: str
) -> tuple[list[str], Mapping[str, str]]:
    """The command that starts a Python `module` under the policy, and its environment; raises `UserError`."""
    if isolation == "sandbox":
        return _bubblewrap(policy, mounts, module), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return _docker(policy, mounts, module, name), dict(os.environ)


def require(isolation: Isolation) -> None:
    """Raises `UserError` where this machine lacks what the isolation needs."""
    if isolation == "sandbox":
        if sys.platform != "linux":
            raise UserError("--sandbox needs Linux (bubblewrap); use --docker")
        _tool("bwrap", "--sandbox needs bubblewrap: apt-get install bubblewrap, or use --docker")
        if os.geteuid() == 0:
            _tool("setpriv", "--sandbox as root needs setpriv: apt-get install util-linux")
        _tool("prlimit", "--sandbox needs prlimit: apt-get install util-linux")
        _try_bubblewrap()
    elif isolation == "docker":
        _tool("docker", "--docker needs Docker (https://docs.docker.com/engine/install/), or use --sandbox")
        require_image()


def _try_bubblewrap() -> None:
    """Raises `UserError` where bubblewrap is there and the system does not let it work."""
    words = [*_namespaces(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise UserError(
            f"--sandbox needs bubblewrap to be allowed to make namespaces here; it says: {said}. "
            "Allow user namespaces (sysctl kernel.unprivileged_userns_clone, AppArmor), or use --docker"
        )


def add_isolation(parser: argparse.ArgumentParser) -> None:
    """The options --sandbox and --docker, as `isolation`."""
    chosen = parser.add_mutually_exclusive_group()
    for name, what in (("sandbox", "bubblewrap"), ("docker", "Docker")):
        chosen.add_argument(
            f"--{name}", dest="isolation", action="store_const", const=name,
            help=f"run submissions apart, under {what}: no network, no files, no test data (docs/isolation.md)",
        )  # fmt: skip
    parser.set_defaults(isolation="none")


def _tool(name: str, message: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UserError(message)
    return found


def _bubblewrap(policy: Policy, mounts: Mounts, module: Sequence[str]) -> list[str]:
    root = os.geteuid() == 0
    words = _namespaces()
    words += ["--proc", "/proc", "--dev", "/dev"]
    for path in device_files(mounts.gpus) if mounts.gpus else ():
        words += ["--dev-bind", str(path), str(path)]
    words += ["--remount-ro", "/dev"]
    words += ["--size", str(_shared_bytes(mounts)), "--perms", "1777", "--tmpfs", "/dev/shm"]
    words += ["--size", str(policy.scratch_bytes), "--perms", "1777", "--tmpfs", "/tmp"]
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    if mounts.gpus:  # cuInit fails without it
        words += ["--ro-bind", "/sys", "/sys"]
    folders = _python_folders(mounts.code)
    above = {parent for path in folders for parent in path.parents} - {Path("/"), Path("/tmp")}
    for path in sorted(above):  # or bubblewrap makes them, for root alone
        words += ["--perms", "0755", "--dir", str(path)]
    for path in folders:
        words += ["--ro-bind", str(path), str(path)]
    for inside, outside in mounts.read_only().items():
        words += ["--ro-bind", str(outside), inside]
    words += ["--bind", str(mounts.exchange), EXCHANGE, "--remount-ro", "/", "--chdir", "/tmp"]
    environment = {"HOME": "/tmp", "PATH": "/usr/bin:/bin", "PYTHONPATH": _python_path(mounts.code)}
    environment |= _for_xla(mounts.gpus)
    if mounts.gpus:
        environment |= {VISIBLE: ",".join(mounts.gpus), **_alike("LD_LIBRARY_PATH")}
    for name, value in environment.items():
        words += ["--setenv", name, value]
    if root:
        words += [_tool("setpriv", "setpriv is not installed"), f"--reuid={_user()}", f"--regid={_user()}"]
        words += ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    words += [_tool("prlimit", "prlimit is not installed"), "--core=0"]
    words += [f"--{name}={_allowed(name, value)}" for name, value in _limits(policy).items()]
    return [*words, sys.executable, "-P", *module]


def _namespaces() -> list[str]:
    words = [_tool("bwrap", "bubblewrap is not installed"), "--unshare-ipc", "--unshare-pid", "--unshare-net"]
    words += ["--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"]
    words += ["--cap-drop", "ALL"]
    # As root no user namespace is needed to set all this up; then the process becomes another user.
    return words + (_kept_to_become_another() if os.geteuid() == 0 else ["--unshare-user", "--disable-userns"])


def _limits(policy: Policy) -> dict[str, int]:
    return {"data": policy.memory_bytes, "fsize": policy.file_bytes, "nproc": policy.processes}


def _allowed(name: str, value: int) -> int:
    """The limit, or the lower one that holds for this process already."""
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _kept_to_become_another() -> list[str]:
    return [word for name in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{name}")]


def _docker(policy: Policy, mounts: Mounts, module: Sequence[str], name: str) -> list[str]:
    memory = f"{policy.memory_bytes}b"
    words = [_tool("docker", "docker is not installed"), "run", "--rm", "--interactive", "--name", name]
    words += ["--pull", "never", "--log-driver", "none"]  # or all that it prints is kept on the host's disk
    words += ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    words += ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(policy.processes)]
    words += ["--user", f"{_user()}:{_user()}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"]
    words += ["--ulimit", "core=0", "--ulimit", f"fsize={policy.file_bytes}", "--ulimit", f"data={policy.memory_bytes}"]
    words += _same_cores()
    words += ["--shm-size", str(_shared_bytes(mounts)), "--workdir", "/tmp"]
    words += ["--tmpfs", f"/tmp:rw,nosuid,nodev,size={policy.scratch_bytes}"]
    for inside, outside in mounts.read_only().items():
        words += ["--mount", f"type=bind,source={outside},target={inside},readonly"]
    words += ["--mount", f"type=bind,source={mounts.exchange},target={EXCHANGE}"]
    for number, path in enumerate(mounts.code):
        words += ["--mount", f"type=bind,source={path},target=/code/{number},readonly"]
    environment = {"HOME": "/tmp", **_for_xla(mounts.gpus)}
    if mounts.gpus:  # numbered anew within the container
        words += ["--gpus", f'"device={",".join(mounts.gpus)}"']
        environment["NVIDIA_DRIVER_CAPABILITIES"] = "compute,utility"
    if mounts.code:
        environment["PYTHONPATH"] = ":".join(f"/code/{number}" for number in range(len(mounts.code)))
    for key, value in environment.items():
        words += ["--env", f"{key}={value}"]
    words += ["--entrypoint", "timeout", image()]
    return [*words, "-s", "KILL", str(int(policy.seconds) + 1), "python", "-P", *module]


def _shared_bytes(mounts: Mounts) -> int:
    """Of shared memory, through which several GPUs exchange what they add up."""
    return 1 << 30 if mounts.gpus else 64 << 20


def _same_cores() -> list[str]:
    """A container is no child of ours, and does not inherit the cores that we were given."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == os.cpu_count():
        return []
    return ["--cpuset-cpus", ",".join(map(str, sorted(os.sched_getaffinity(0))))]


def owner() -> tuple[int, int] | None:
    """Who must own what the process may write, where that is not who starts it."""
    return (_user(), _user()) if os.geteuid() == 0 else None


def _user() -> int:
    """Who root starts processes as: another user in each trial, because Linux counts processes by user."""
    return _TRANSIENT_USERS[os.getpid() % len(_TRANSIENT_USERS)]


def _python_folders(code: Sequence[Path]) -> list[Path]:
    """What holds this Python, its packages and the harness; none inside another."""
    import timetrial
    from timetrial.registry import shipped

    folders = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix, *sys.path, *code) if p and Path(p).is_dir()}
    folders |= {Path(sys.prefix), Path(sys.executable).parent.parent}  # a virtual environment may be a link
    package, workloads = Path(timetrial.__file__).resolve().parent, shipped("workloads").resolve()
    folders |= {package, workloads}
    if not workloads.is_relative_to(package):
        folders.add(workloads.parent / "pyproject.toml")  # by which a checkout is known
    outer = [f for f in folders if not any(f != other and f.is_relative_to(other) for other in folders)]
    return sorted(f for f in outer if not any(f.is_relative_to(system) for system in _SYSTEM))


def _python_path(code: Sequence[Path]) -> str:
    """Where the child imports from: what this process does, without the folder that it was started in."""
    return os.pathsep.join(str(path) for path in (*map(str, code), *sys.path) if path and Path(path).exists())


def _for_xla(gpus: Sequence[str]) -> dict[str, str]:
    """What decides the number of XLA's threads, its flags and its memory, alike on both sides; and which devices."""
    return {**_alike("NPROC", "XLA_FLAGS", *MEMORY), "JAX_PLATFORMS": "cuda,cpu" if gpus else "cpu"}


def _alike(*names: str) -> dict[str, str]:
    """What this process's environment says."""
    return {name: os.environ[name] for name in names if name in os.environ}
