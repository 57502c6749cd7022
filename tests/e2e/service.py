"""The real service as a user starts it, and ways to kill parts of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from hpo_service.client.http import ApiProblem, Client, ServiceUnreachable
from hpo_service.core.settings import Settings
from hpo_service.local.supervisor import reading_url
from tests.consistency.place import Place

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 60.0
_ANSWER_SECONDS = 10.0
_TAIL_CHARACTERS = 12_000
_STACK = "Current thread "  #: begins the last part of what SIGUSR1 makes a process write
ENDED = ("completed", "failed", "cancelled")

STUDY: dict[str, Any] = {
    "metadata": {"name": "study"},
    "model": {"path": "examples/tiny-llama"},
    "data": {
        "train": "examples/wordnet-instruct/train.jsonl",
        "eval": "examples/wordnet-instruct/eval.jsonl",
        "max_length": 96,
        "max_train_examples": 160,
        "max_eval_examples": 40,
    },
    "space": {
        "learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
        "lora_r": {"choices": [4, 8, 16]},
        "lora_dropout": {"low": 0.0, "high": 0.2},
        "effective_batch": 8,
    },
    "baseline": {"learning_rate": 2e-4, "lora_r": 8, "lora_dropout": 0.0},
    "search": {"strategy": "asha", "seed": 7, "deterministic": True, "first_rung_fraction": 0.12},
    "budget": {"max_trials": 8},
}


class Service:
    """`hpo up` on a home of its own. Every process that belongs to it is found through its HPO_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def up(self, *options: str) -> None:
        """Start it and wait until it is ready."""
        with (self.home.parent / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hpo_service.cli", "up", "--port", str(self.port), *options],
                env=self.environment(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait(self.ready, START_SECONDS, "the service to be ready")

    def environment(self) -> dict[str, str]:
        """What every command of the service's user runs with."""
        return dict(os.environ) | {"HPO_HOME": str(self.home), "HPO_ROOTS": str(ROOT)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `hpo` command against the service."""
        return subprocess.run(
            [sys.executable, "-m", "hpo_service.cli", *arguments],
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def place(self) -> Place:
        """Where it is looked at."""
        return Place(
            url=self.url,
            key=(self.home / "admin.key").read_text().strip(),
            tables=reading_url(Settings(home=self.home)),
            snapshots=self.home / "snapshots",
            hpo=self.run,
        )

    def ready(self) -> bool:
        """Whether the API and its database answer."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5.0, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def client(self) -> Client:
        """A client with the admin key."""
        return Client(self.url, (self.home / "admin.key").read_text().strip())

    def down(self) -> int:
        """Ask it to stop, as Ctrl-C does, and wait for the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended after {STOP_SECONDS:.0f} s; {self.stacks()}") from None

    def stacks(self) -> str:
        """Ask what runs where in its code it is; the end of each log, which says it.

        One after the other, because API and dashboard share a log and write their answers in small pieces. A process
        that has only just begun ends by being asked, and one that is stuck outside of Python does not answer.
        """
        lines = []
        for process in self.processes("everything"):
            with suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline())
                lines.append(f"{process.pid} {command}")
                if not re.search(r"bin/postgres|mlflow", command):
                    self._ask_for_stack(process)
        return "\n".join([*lines, self._log_tail()])

    def _ask_for_stack(self, process: psutil.Process) -> None:
        """Returns when the answer is written to its end."""
        before, said = "", self._log_tail()
        answers = said.count(_STACK) + 1
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (said.count(_STACK) < answers or said != before) and time.monotonic() < deadline:
            time.sleep(0.1)
            before, said = said, self._log_tail()

    def kill(self, part: str) -> None:
        """SIGKILL one part: worker, dispatcher, api, postgres, or everything at once."""
        if part == "everything":
            assert self._process is not None
            self._process.kill()
            self._process.wait()
        for process in self.processes(part):
            process.kill()

    def processes(self, part: str) -> list[psutil.Process]:
        """Living processes of that part."""
        wanted = re.compile(
            {
                "worker": r"trainer\.worker",
                "dispatcher": r"hpo_service\.cli dispatch",
                "api": r"hpo_service\.cli serve",
                "outbox": r"hpo_service\.cli outbox",
                "mlflow": r"mlflow_server/guarded\.py",
                "postgres": r"bin/postgres -D",
                "everything": r"trainer\.worker|hpo_service|bin/postgres -D",
            }[part]
        )
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if wanted.search(" ".join(process.info["cmdline"] or [])) and self._owns(process)
        ]

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}; {self._log_tail()}"
            time.sleep(0.1)

    def study(self, name: str) -> dict[str, Any]:
        """The study's document; empty while the service does not answer."""
        try:
            with self.client() as client:
                return client.get(f"/v1/studies/{name}")
        except (ServiceUnreachable, httpx.HTTPError):
            return {}
        except ApiProblem as problem:
            if problem.status != 503:
                raise
            return {}

    def wait_for_reports(self, name: str, count: int) -> None:
        """Wait until the study has so many rung losses."""
        self.wait(lambda: self._reports(name) >= count, 120, f"{count} reports of {name}")

    def wait_for_end(self, name: str) -> dict[str, Any]:
        """Wait until the study has ended; its document."""
        self.wait(lambda: self.study(name).get("state") in ENDED, 240, f"the end of {name}")
        return self.study(name)

    def trials(self, name: str) -> list[dict[str, Any]]:
        """All trials of the study."""
        with self.client() as client:
            return list(client.get(f"/v1/studies/{name}/trials", page_size=500)["items"])

    def _reports(self, name: str) -> int:
        try:
            return sum(len(trial["losses"]) for trial in self.trials(name))
        except (ServiceUnreachable, httpx.HTTPError):
            return -1
        except ApiProblem as problem:
            if problem.status != 503:
                raise
            return -1

    def _owns(self, process: psutil.Process) -> bool:
        """Ours is what runs with our HPO_HOME, names it, or is a child of such a process."""
        home = str(self.home)
        try:
            return any(
                home in " ".join(relative.cmdline()) or relative.environ().get("HPO_HOME") == home
                for relative in [process, *process.parents()[:1]]
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def _log_tail(self) -> str:
        logs = [self.home.parent / "up.log", *sorted((self.home / "logs").glob("*.log"))]
        logs += sorted((self.home / "postgres").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-_TAIL_CHARACTERS:]}" for log in logs)
