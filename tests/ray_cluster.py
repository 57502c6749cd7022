"""A real Ray cluster on this machine: a head and more nodes, each with a home, a folder and devices of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import psutil

ROOT = Path(__file__).parents[1]
TOKEN = "0123456789abcdef" * 4
#: what the cluster of the tests calls a device
RESOURCE = "slot"
#: a node is given up after about six seconds of silence
_TUNED = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
}
_COMMON = ("--include-log-monitor=false", "--num-cpus=0", "--num-gpus=0", "--object-store-memory=80000000")
_START_SECONDS = 120.0


class RayNode:
    """One `ray start --block` and everything below it."""

    def __init__(self, name: str, folder: Path, arguments: list[str]) -> None:
        self.name = name
        self.home = folder / name
        self.home.mkdir(parents=True)
        self.log = self.home / "start.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "ray.scripts.scripts",
                    "start",
                    "--block",
                    *_COMMON,
                    f"--node-name={name}",
                    *arguments,
                ],
                env={**os.environ, **environment(), "HOME": str(self.home), "PYTHONPATH": str(ROOT)},
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def has_started(self) -> bool:
        """Whether it is part of the cluster."""
        return "Ray runtime started" in self.log.read_text(errors="replace")

    def parts(self, name: str) -> list[psutil.Process]:
        """Its processes of that name: raylet, gcs_server."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if Path(child.name()).name == name]

    def actors(self) -> list[psutil.Process]:
        """The actors beside its workers."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "ray::WorkerHost" in " ".join(_command_of(child))]

    def signal_raylet(self, number: signal.Signals) -> None:
        """Kill, stop or continue the raylet alone; its actors' processes are not touched."""
        (raylet,) = self.parts("raylet")
        raylet.send_signal(number)

    def kill(self) -> None:
        """The whole machine is gone."""
        processes = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        processes += [child for one in processes for child in one.children(recursive=True)]
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=10)
        self.process.wait()


class RayCluster:
    """A head without devices, which is the dispatcher's node, and one node for each number in `devices`."""

    def __init__(self, folder: Path, devices: list[int]) -> None:
        self.folder = folder
        # Sockets lie below it, and the path of a socket has at most 107 bytes.
        self.sessions = Path(mkdtemp(prefix="ray-"))
        self.port = _free_port()
        self.nodes: dict[str, RayNode] = {}
        try:
            self.start_head()
            for count in devices:
                self.add_node(count)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """What a driver connects to."""
        return f"127.0.0.1:{self.port}"

    def start_head(self) -> None:
        """Start the head, again if it is gone; nothing of an earlier one comes back."""
        arguments = [
            "--head",
            f"--port={self.port}",
            "--include-dashboard=false",
            f"--temp-dir={self.sessions}",
            f"--system-config={json.dumps(_TUNED)}",
        ]
        name = f"head{sum(node.startswith('head') for node in self.nodes)}"
        self.nodes[name] = RayNode(name, self.folder, [*arguments, *_size(0)])
        self.wait_for(self.nodes[name].has_started, "the head to start")

    def add_node(self, devices: int) -> RayNode:
        """One more node with so many devices."""
        name = f"node{len(self.nodes)}"
        self.nodes[name] = RayNode(name, self.folder, [f"--address={self.address}", *_size(devices)])
        self.wait_for(self.nodes[name].has_started, f"{name} to join")
        return self.nodes[name]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            logs = "\n".join(node.log.read_text(errors="replace")[-1500:] for node in self.nodes.values())
            assert time.monotonic() < deadline, f"waited for {what}\n{logs}"
            time.sleep(0.2)

    def actors(self) -> list[psutil.Process]:
        """The actors beside workers on all its nodes."""
        return [actor for node in self.nodes.values() if node.process.poll() is None for actor in node.actors()]

    def logs(self) -> str:
        """What its actors have said."""
        folder = self.sessions / "session_latest" / "logs"
        return "".join(log.read_text(errors="replace") for log in folder.glob("worker-*.err"))

    def close(self) -> None:
        """End everything."""
        for node in self.nodes.values():
            node.kill()
        shutil.rmtree(self.sessions, ignore_errors=True)


def environment() -> dict[str, str]:
    """What every process of the cluster and every driver needs."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }


def _command_of(process: psutil.Process) -> list[str]:
    """Nothing of a process that has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _size(devices: int) -> list[str]:
    return [f"--resources={json.dumps({RESOURCE: devices} if devices else {})}"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
