"""The processes of one trial, on one machine or several: the leader starts its followers and talks to them.

The leader holds the judge, the record and the checkpoints, and sends orders (`timetrial.mirror` says which); a follower
carries them out. Either notices within `LOST_SECONDS` that the other is gone: a process that dies closes its sockets at
once, and a machine that is lost answers no more. Then the trial cannot go on, and what is left of it exits.
"""

import contextlib
import hmac
import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Any, NoReturn

from timetrial.errors import UserError
from timetrial.launchers.shares import Share, shares

FOLLOWS = "TIMETRIAL_FOLLOWS"
"""Environment of a follower: where its leader listens, and the word that it wants to hear."""
LOST_SECONDS = 20.0
"""A process that has not answered for so long is lost."""
_PING_SECONDS = 1.0
_JOIN_SECONDS = 300.0
"""For all to be there: on a cluster, followers are started by its scheduler."""
_ALONE_SECONDS = 60.0
"""How much sooner than the leader a follower may meet the failure that all of them meet."""
Order = Sequence[Any]
"""A name and its arguments: JSON."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which of the trial's processes this is, and what it may use."""

    rank: int
    processes: int
    coordinator: str
    """Where jax's own service listens, in the leader."""
    cores: tuple[int, ...] = ()

    def join(self) -> None:
        """Pins this process to its cores, and makes the devices of all processes jax's. Before anything asks for one.

        jax's own handler of SIGTERM is turned off, since the trial has one.
        """
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        import jax
        from jax.experimental import multihost_utils

        jax.config.update("jax_enable_preemption_service", False)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            self.coordinator,
            self.processes,
            self.rank,
            initialization_timeout=int(_JOIN_SECONDS),
            shutdown_timeout_seconds=int(LOST_SECONDS),
            cluster_detection_method="deactivate",
        )
        multihost_utils.sync_global_devices("joined")


class Followers:
    """The other processes of a trial, as its leader sees them."""

    def __init__(self, processes: int, job: Mapping[str, Any], lost: Callable[[str], None]) -> None:
        """Starts them and waits until all are there; each is told the job.

        `lost` is called with what happened when one is gone, and must not return: no collective will end any more.
        Raises `UserError` where they cannot be started here, and ConnectionError where one does not come.
        """
        self._lost = lost
        self._sending = threading.Lock()
        self._over = threading.Event()
        spread = _nodes(processes)
        own, *others = [Share()] * processes if spread else shares(processes)
        os.environ.update(own.environment)
        host = socket.gethostname() if spread else "127.0.0.1"
        word = secrets.token_hex(16)
        with socket.create_server(("" if spread else host, 0)) as server:
            server.settimeout(1.0)
            address = f"{host}:{server.getsockname()[1]}"
            self._processes = _start(spread, others, {FOLLOWS: f"{address} {word}"})
            self.place = Place(rank=0, processes=processes, coordinator=f"{host}:{_free_port(host)}", cores=own.cores)
            self._sockets: list[socket.socket] = []
            until = time.monotonic() + _JOIN_SECONDS
            while len(self._sockets) < len(others):
                follower = self._come(server, word.encode(), until)
                if follower is None:
                    continue
                rank = len(self._sockets) + 1
                place = Place(
                    rank=rank, processes=processes, coordinator=self.place.coordinator, cores=others[rank - 1].cores
                )
                _send(follower, (asdict(place), job))
                self._sockets.append(follower)
        for number in range(len(self._sockets)):
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def _come(self, server: socket.socket, word: bytes, until: float) -> socket.socket | None:
        """One that has come and knows the word; None where nobody has, or a stranger."""
        codes = [code for process in self._processes if (code := process.poll()) is not None]
        if codes or time.monotonic() > until:
            why = f"one ended with exit code {codes[0]}" if codes else f"they did not come within {_JOIN_SECONDS:g} s"
            raise ConnectionError(f"the trial's other processes cannot be started: {why}")
        try:
            follower, _ = server.accept()
        except TimeoutError:
            return None
        follower.settimeout(LOST_SECONDS)
        with contextlib.suppress(OSError):  # it goes away again
            if hmac.compare_digest(follower.recv(len(word), socket.MSG_WAITALL), word):
                return follower
        follower.close()
        return None

    def tell(self, *order: Any) -> None:
        """Sends an order; does not wait for anything."""
        with self._sending:
            for number, follower in enumerate(self._sockets):
                try:
                    _send(follower, order)
                except OSError as error:
                    self._lose(number, error.strerror or str(error))

    def close(self) -> None:
        """Lets them go, and waits a little until they are gone."""
        self._over.set()
        for follower in self._sockets:
            with contextlib.suppress(OSError):  # it is gone already
                follower.shutdown(socket.SHUT_WR)
        until = time.monotonic() + LOST_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for follower in self._sockets:
            follower.close()

    def _beat(self) -> None:
        while not self._over.wait(_PING_SECONDS):
            self.tell("ping")

    def _listen(self, number: int) -> None:
        """Hears a follower's answers, and notes when there are none any more."""
        try:
            with self._sockets[number].makefile("rb") as lines:
                for line in lines:
                    if line != b"\n" and not self._over.wait(_ALONE_SECONDS):
                        self._lose(number, f"it failed alone: {json.loads(line)}")
            self._lose(number, "its process ended")
        except OSError as error:
            self._lose(number, str(error))

    def _lose(self, number: int, why: str) -> None:
        if not self._over.is_set():
            self._lost(f"process {number + 1} of the trial's processes 0 to {len(self._sockets)} is lost: {why}")


class Leader:
    """The leader of a trial, as a follower sees it."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Goes to the leader that the environment names. From here on this process exits when the leader does."""
        address, word = environment[FOLLOWS].split()
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=_JOIN_SECONDS)
        self._socket.sendall(word.encode())
        self._lines = self._socket.makefile("rb")
        place, job = json.loads(self._lines.readline())
        place["cores"] = tuple(place["cores"])
        self.place, self.job = Place(**place), job
        self._socket.settimeout(LOST_SECONDS)
        self._orders: SimpleQueue[Order] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def order(self) -> Order:
        """The next order; waits for it."""
        return self._orders.get()

    def failed(self, why: str) -> NoReturn:
        """Says that this process cannot go on. It stays until the leader ends the trial, which may fail likewise."""
        _send(self._socket, why)
        while True:
            time.sleep(LOST_SECONDS)

    def _listen(self) -> None:
        """Answers pings, and keeps the orders. It ends the process, whatever that is waiting for, with the leader."""
        try:
            for line in self._lines:
                order = json.loads(line)
                if order == ["ping"]:
                    self._socket.sendall(b"\n")
                else:
                    self._orders.put(order)
        except OSError as error:
            print(f"the leader of the trial is lost: {error}", file=sys.stderr, flush=True)
        os._exit(0)


def _send(to: socket.socket, message: Any) -> None:
    to.sendall(json.dumps(message).encode() + b"\n")


def _nodes(processes: int) -> bool:
    """Whether each process has a machine of its own: those of the Slurm job that this one is the first of."""
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes not in (1, processes):
        raise UserError(f"--processes {processes}: this Slurm job has {nodes} nodes; ask for {processes}, or for one")
    return nodes > 1


def _start(spread: bool, others: Sequence[Share], environment: Mapping[str, str]) -> list["subprocess.Popen[bytes]"]:
    """Starts the followers as this process was started: here, or by one srun on the job's other nodes."""
    own = (sys.executable, *sys.orig_argv[1:])
    if not spread:
        return [_popen(own, {**environment, **share.environment}) for share in others]
    n = str(len(others))
    return [
        _popen(
            ("srun", "--overlap", "--relative=1", "--nodes", n, "--ntasks", n, "--ntasks-per-node=1", *own), environment
        )
    ]


def _popen(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno()
        )
    except FileNotFoundError:
        raise UserError(f"cannot run {shlex.join(command)}: no {command[0]} here") from None


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])
