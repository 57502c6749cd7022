"""The calls of MLflow's REST API that we make, on a port of this machine. It keeps all it is told, twice if told twice.

The real server is met in tests/full.
"""

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.mlflow_registry_stub import Refusal, RegistryStub

Json = dict[str, Any]
_API = "/api/2.0/mlflow/"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
_KEY_FILTER = re.compile(r"tags\.`hpo\.run` = '(.+)'")


class StubStore(RegistryStub):
    """What the server knows. `trouble` sees every call, path and content, after it took effect, and may raise."""

    def __init__(self) -> None:
        super().__init__()
        self.experiments: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.trouble: Callable[[str, str], None] = lambda path, content: None
        self._lock = threading.Lock()

    def answer(self, path: str, body: Json) -> Json:
        with self._lock:
            self.calls.append(path)
            handler = getattr(self, "_" + re.sub(r"\W", "_", path), None)
            if handler is None:
                raise Refusal(404, "ENDPOINT_NOT_FOUND", path)
            answer: Json = handler(body)
            self.trouble(path, json.dumps(body))
            return answer

    def put_file(self, path: str, content: bytes) -> None:
        with self._lock:
            self.files[path] = content
            self.trouble("put", path)

    def _experiments_create(self, body: Json) -> Json:
        number = str(len(self.experiments) + 1)
        self.experiments[body["name"]] = {
            "experiment_id": number,
            "name": body["name"],
            "artifact_location": f"mlflow-artifacts:/{number}",
            "lifecycle_stage": "active",
        }
        return {"experiment_id": number}

    def _experiments_get_by_name(self, body: Json) -> Json:
        found = self.experiments.get(body["experiment_name"])
        if found is None:
            raise Refusal(404, "RESOURCE_DOES_NOT_EXIST", "no such experiment")
        return {"experiment": found}

    def _runs_create(self, body: Json) -> Json:
        number = uuid.uuid4().hex  # the client keeps what it knows of a run
        info = {
            "run_id": number,
            "run_uuid": number,
            "run_name": body["run_name"],
            "experiment_id": body["experiment_id"],
            "status": "RUNNING",
            "start_time": body["start_time"],
            "artifact_uri": f"mlflow-artifacts:/{body['experiment_id']}/{number}/artifacts",
            "lifecycle_stage": "active",
        }
        data: Json = {"tags": list(body["tags"]), "params": [], "metrics": []}
        self.runs[number] = {"info": info, "data": data}
        return {"run": self.runs[number]}

    def _runs_search(self, body: Json) -> Json:
        wanted = _KEY_FILTER.fullmatch(body.get("filter", ""))
        stages = {"ACTIVE_ONLY": {"active"}, "ALL": {"active", "deleted"}}[body.get("run_view_type", "ACTIVE_ONLY")]
        found = [
            run
            for run in self.runs.values()
            if run["info"]["experiment_id"] in body["experiment_ids"]
            and run["info"]["lifecycle_stage"] in stages
            and (wanted is None or tags_of(run).get("hpo.run") == wanted[1])
        ]
        return {"runs": found}

    def _runs_update(self, body: Json) -> Json:
        run = self._active(body)
        run["info"] |= {name: body[name] for name in ("status", "end_time") if body.get(name)}
        return {"run_info": run["info"]}

    def _runs_log_batch(self, body: Json) -> Json:
        data = self._active(body)["data"]
        known = {one["key"]: one["value"] for one in data["params"]}
        for one in body.get("params", []):
            if known.setdefault(one["key"], one["value"]) != one["value"]:
                raise Refusal(400, "INVALID_PARAMETER_VALUE", f"parameter {one['key']} is fixed")
        data["params"] = [{"key": key, "value": value} for key, value in known.items()]
        data["metrics"] += body.get("metrics", [])
        tags = {one["key"]: one["value"] for one in (*data["tags"], *body.get("tags", []))}
        data["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        return {}

    def _runs_delete(self, body: Json) -> Json:
        self._active(body)["info"]["lifecycle_stage"] = "deleted"
        return {}

    def _metrics_get_history(self, body: Json) -> Json:
        metrics = self.runs[body["run_id"]]["data"]["metrics"]
        return {"metrics": [one for one in metrics if one["key"] == body["metric_key"]]}

    def _runs_get(self, body: Json) -> Json:
        return {"run": self.runs[body["run_id"]]}

    def _active(self, body: Json) -> Json:
        run = self.runs[body["run_id"]]
        if run["info"]["lifecycle_stage"] != "active":
            raise Refusal(400, "INVALID_PARAMETER_VALUE", "the run must be in the 'active' state")
        return run


def tags_of(run: Json) -> dict[str, str]:
    """A run's tags by name."""
    return {one["key"]: one["value"] for one in run["data"]["tags"]}


class _Handler(BaseHTTPRequestHandler):
    store: StubStore
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})

    def do_POST(self) -> None:
        self._answer(self.path, json.loads(self._body() or b"{}"))

    def do_DELETE(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        content, path = self._body(), unquote(urlsplit(self.path).path)
        try:
            self.store.put_file(path.removeprefix(_ARTIFACTS), content)
            self._send(200, {})
        except Refusal as error:
            self._send(error.status, error.body)

    def _answer(self, path: str, body: Json) -> None:
        try:
            self._send(200, self.store.answer(path.removeprefix(_API), body))
        except Refusal as error:
            self._send(error.status, error.body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, status: int, body: Json) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@contextmanager
def served(store: StubStore, port: int = 0) -> Iterator[str]:
    """The server's URL; nobody listens there afterwards."""

    class Handler(_Handler):
        """Of this store."""

    Handler.store = store
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
