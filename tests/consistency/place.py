"""Where a service is looked at: its API, its pages, its tables, its command, its snapshots."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from hpo_service.client.http import Client

Json = dict[str, Any]
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Place:
    """A running service, with an administrator's key, on the service's machine.

    `tables` is an SQLAlchemy URL that Optuna reads studies from. `hpo` runs the command line. `dashboard`: the service
    runs optuna-dashboard. `trains`: workers train a model, so snapshots hold one. `disturbed`: faults were made that
    may end a trial and are told of.
    """

    url: str
    key: str
    tables: str
    snapshots: Path
    hpo: Callable[..., subprocess.CompletedProcess[str]]
    dashboard: bool = True
    trains: bool = True
    disturbed: bool = False

    def client(self) -> Client:
        """The typed client."""
        return Client(self.url, self.key)

    @cached_property
    def http(self) -> httpx.Client:
        """A client that reads pages as a browser does."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=_ANSWER_SECONDS, trust_env=False)

    def get(self, path: str) -> Json:
        """The JSON at `path`. Raises AssertionError where there is none."""
        answer = self.http.get(path)
        assert answer.status_code == 200, f"{path} answers {answer.status_code}: {answer.text[:300]}"
        found: Json = answer.json()
        return found

    def page(self, path: str) -> str:
        """The text at `path`."""
        answer = self.http.get(path)
        assert answer.status_code == 200, f"{path} answers {answer.status_code}: {answer.text[:300]}"
        return answer.text

    def command(self, *arguments: str) -> str:
        """What `hpo ARGUMENTS` prints. Raises AssertionError where it fails."""
        ran = self.hpo(*arguments)
        assert ran.returncode == 0, f"hpo {' '.join(arguments)}: {ran.stderr[-2000:]}"
        return ran.stdout
