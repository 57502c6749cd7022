#!/bin/sh
# MLflow's server on a database of its own, without what we do not need: jobs, pickle, unknown hosts.
set -eu

MLFLOW_BACKEND_STORE_URI="$(cat "${HPO_SECRETS_DIR:-/run/secrets}/mlflow_database_url")"
export MLFLOW_BACKEND_STORE_URI
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT=true
exec mlflow server --host 0.0.0.0 --port 5000 --workers 1 --serve-artifacts \
    --artifacts-destination "${MLFLOW_ARTIFACTS:-/var/lib/mlflow}" \
    --allowed-hosts "${MLFLOW_ALLOWED_HOSTS:-localhost:*,127.0.0.1:*,mlflow:5000}"
