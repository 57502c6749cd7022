"""How `hpo up --mlflow` runs MLflow's server: what it needs, its command and its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.integrations.switches import require_mlflow_client
from hpo_service.local.home import require_free_port
from trainer.export.tools import ToolError, Tools

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
DATABASE = "mlflow"
_GUARDED = Path(__file__).with_name("guarded.py")
_HOST = "127.0.0.1"
#: Whoever reaches the server may use it: so it runs no jobs, loads no pickles and tells nobody outside.
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def require_startable(settings: Settings) -> None:
    """Raise SetupError where `hpo up` cannot run MLflow's server."""
    if settings.mlflow_uri() is not None:
        raise SetupError("MLFLOW_TRACKING_URI names an MLflow server already; unset it, or leave --mlflow out.")
    if settings.database_url is not None:
        raise SetupError(
            "--mlflow needs the PostgreSQL that `hpo up` brings, but HPO_DATABASE_URL is set; "
            "start MLflow's server yourself and name it in MLFLOW_TRACKING_URI."
        )
    require_mlflow_client("--mlflow is given")
    require_free_port(_HOST, settings.mlflow_port, remedy="choose another with HPO_MLFLOW_PORT")


@dataclass(frozen=True, kw_only=True)
class MlflowServer:
    """`python` is the interpreter of an environment that has MLflow, `artifacts` the folder of the runs' files."""

    python: Path
    port: int
    artifacts: Path

    @classmethod
    def prepared(cls, settings: Settings) -> "MlflowServer":
        """Its environment is made at the first time, which takes minutes and pip's index. Raises SetupError."""
        try:
            python = Tools().environment("mlflow", REQUIREMENTS)
        except ToolError as error:
            raise SetupError(
                f"MLflow's server could not be installed: {error}. "
                "Correct that, or leave --mlflow out and name a server of yours in MLFLOW_TRACKING_URI."
            ) from error
        return cls(python=python, port=settings.mlflow_port, artifacts=settings.home_path() / "mlflow")

    @property
    def url(self) -> str:
        """Where it answers, for browsers and clients of this machine."""
        return f"http://{_HOST}:{self.port}"

    def command(self) -> list[str]:
        """Its standard input must be a pipe whose end ends it, and its process group its own."""
        hosts = ",".join(f"{host}:{self.port}" for host in (_HOST, "localhost"))
        return [
            *(str(self.python), "-P", str(_GUARDED), "server"),
            *("--host", _HOST, "--port", str(self.port), "--workers", "1", "--allowed-hosts", hosts),
            *("--serve-artifacts", "--artifacts-destination", str(self.artifacts)),
        ]

    def environment(self, database_url: str) -> Mapping[str, str]:
        """Nothing of ours but its database: no setting, no key. `database_url` is a secret."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HPO_", "MLFLOW_", "PYTHON"))}
        path = os.pathsep.join([str(self.python.parent), kept.get("PATH", os.defpath)])
        return kept | ENVIRONMENT | {"MLFLOW_BACKEND_STORE_URI": database_url, "PATH": path}
