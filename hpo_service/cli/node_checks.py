"""What `hpo doctor` asks a running service: whether each node sees models, data and snapshots."""

import time
from dataclasses import dataclass
from typing import Any

from hpo_service.cli.connection import connect
from hpo_service.client.http import ApiProblem, Client, ServiceUnreachable
from hpo_service.core.errors import SetupError

_ANSWER_SECONDS = 60.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class NodeCheck:
    """A worker that answered, or whose node was refused."""

    worker: str
    node: str
    ok: bool
    detail: str


def check_nodes() -> list[NodeCheck]:
    """One for every worker and for every node whose workers were refused; none where no service answers."""
    try:
        with connect() as client:
            nodes = {worker["name"]: worker["node"] for worker in client.pages("/v1/workers")}
            checks = _answered(client, client.post("/v1/path-checks")["checks"])
            seen = [_judge(check, nodes.get(check["worker"], "")) for check in checks]
            return [*seen, *_refused(client, {check.node for check in seen})]
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


def _judge(check: dict[str, Any], node: str) -> NodeCheck:
    worker, report = check["worker"], check["report"]
    if report is None:
        why = check["message"] or f"it has not answered within {_ANSWER_SECONDS:g} s"
        return NodeCheck(worker=worker, node=node, ok=False, detail=why)
    if check["problems"]:
        return NodeCheck(worker=worker, node=node, ok=False, detail="; ".join(check["problems"]))
    free = report["snapshots_free_bytes"]
    space = "" if free is None else f", {free / 1024**3:.1f} GB free for snapshots"
    detail = f"sees the snapshot store and all paths that were asked for ({len(report['paths'])}){space}"
    return NodeCheck(worker=worker, node=node, ok=True, detail=detail)


def _refused(client: Client, good: set[str]) -> list[NodeCheck]:
    """What the leading dispatcher refused on nodes from which nobody works."""
    found: dict[str, NodeCheck] = {}
    for event in client.pages("/v1/events"):
        payload = event["payload"]
        if event["kind"] == "dispatcher.took_over":
            found.clear()
        elif event["kind"] == "worker.refused" and payload["node"] not in good:
            node = str(payload["node"])
            found[node] = NodeCheck(worker=payload["worker"], node=node, ok=False, detail=payload["message"])
    return list(found.values())
