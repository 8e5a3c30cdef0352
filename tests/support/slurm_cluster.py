"""A real Slurm of one machine: a controller and two nodes, started in a folder and ended with it. Needs root."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

COMMANDS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2")

CONFIG = """
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=bf_interval=2,sched_interval=2
JobRequeue=1
SlurmdTimeout=5
KillWait=15
MaxArraySize={largest_array}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None where one can."""
    lacking = [command for command in COMMANDS if shutil.which(command) is None]
    if lacking or os.geteuid() != 0:
        return f"needs Slurm and munge, and root to start them (missing: {', '.join(lacking) or 'root'})"
    return None


class Cluster:
    """`environment` makes Slurm's commands talk to it."""

    def __init__(self, config: Path, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
        self.environment = {**os.environ, "SLURM_CONF": str(config)}
        self._start = start
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        for node in NODES:
            self.begin(node)

    def call(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def queue(self, job: str) -> list[tuple[str, str]]:
        """State and node of each task of an array that is not over."""
        listed = self.call("squeue", "--noheader", "--array", "--jobs", job, "--format", "%T %N")
        return [(fields[0], fields[-1]) for fields in map(str.split, listed.splitlines())]

    def idle(self) -> bool:
        """Whether all nodes are up and have nothing to do."""
        try:
            return self.call("sinfo", "--noheader", "--format", "%T %D").split() == ["idle", str(len(NODES))]
        except subprocess.CalledProcessError:  # the controller does not answer yet
            return False

    def finish(self, job: str) -> None:
        """Waits until Slurm has nothing more to do for a job."""
        until(lambda: not self.queue(job))

    def begin(self, node: str) -> None:
        """Starts a node's daemon."""
        self._nodes[node] = self._start("slurmd", "-D", "-N", node)

    def lose(self, node: str) -> None:
        """Kills a node: its daemon, and all that ran on it."""
        self._nodes[node].kill()
        for process in on_node(node):
            try:
                parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
                if "slurmstepd" in Path(f"/proc/{parent}/comm").read_text():
                    os.kill(parent, signal.SIGKILL)
                os.kill(process, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):  # gone with its parent
                continue


def on_node(node: str) -> list[int]:
    """The processes of jobs that run on a node."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"SLURMD_NODENAME={node}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def until(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Looks five times a second until something is so; longer than `seconds` only where something is wrong."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {seconds:g} s")
        time.sleep(0.2)


@contextmanager
def cluster(folder: Path, *, largest_array: int = 1001) -> Iterator[Cluster]:
    ports = _free_ports(3)
    nodes = "\n".join(
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"
        for name, port in zip(NODES, ports[1:], strict=True)
    )
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    text = CONFIG.format(folder=folder, controller=ports[0], nodes=nodes, largest_array=largest_array)
    config = folder / "slurm.conf"
    config.write_text(text)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(256))
    key.chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(config)}
    with ExitStack() as stack:

        def start(*command: str) -> "subprocess.Popen[bytes]":
            log = stack.enter_context(open(folder / f"{Path(command[0]).name}.out", "ab"))
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        munge = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
        munge |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
        start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items()))
        until((folder / "munge.socket").exists)
        start("slurmctld", "-D")
        found = Cluster(config, start)
        stack.callback(lambda: [found.lose(node) for node in NODES])
        until(found.idle)
        yield found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
