"""What `hpo doctor` asks the workers of a running service: whether each node sees models, data and snapshots."""

import time
from typing import Any

from hpo_service.cli.connection import connect
from hpo_service.client import ApiProblem, Client, ServiceUnreachable
from hpo_service.errors import SetupError

_ANSWER_SECONDS = 60.0
_POLL_SECONDS = 0.5


def ask_workers() -> list[dict[str, Any]]:
    """The path check of every worker, ended or not; nothing where no service answers."""
    try:
        with connect() as client:
            return _answered(client, client.post("/v1/path-checks")["checks"])
    except (ApiProblem, ServiceUnreachable, SetupError, ValueError):
        return []


def _answered(client: Client, checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while any(check["state"] == "pending" for check in checks) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        checks = [
            client.get(f"/v1/path-checks/{check['job']}") if check["state"] == "pending" else check for check in checks
        ]
    return checks


def described(check: dict[str, Any]) -> tuple[bool, str]:
    """Whether all is well, and what was found."""
    report = check["report"]
    if report is None:
        return False, check["message"] or f"{check['worker']} has not answered within {_ANSWER_SECONDS:g} s"
    if check["problems"]:
        return False, "; ".join(check["problems"])
    free = report["snapshots_free_bytes"]
    space = "" if free is None else f", {free / 1024**3:.1f} GB free for snapshots"
    return True, f"sees the snapshot store and {len(report['paths'])} paths{space}"
