"""MLflow's own server beside `hpo up`: environment and database of its own, for this machine only."""

from hpo_service.local.mlflow_server.server import DATABASE, MlflowServer, require_startable

__all__ = ["DATABASE", "MlflowServer", "require_startable"]
