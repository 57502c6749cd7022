#!/bin/sh
# Makes what compose.yaml reads as secrets, once, with fresh random values: deploy/make-secrets.sh [FOLDER]
#
# Containers read the files as another user, so the files are readable and the folder is not.
set -eu

folder="${1:-$(dirname "$0")/secrets}"
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

keep() { # NAME VALUE: never overwrites
    if [ ! -e "$folder/$1" ]; then
        printf '%s' "$2" >"$folder/$1"
        chmod 444 "$folder/$1"
        echo "made $folder/$1"
    fi
}

keep postgres_password "$(random)"
keep hpo_password "$(random)"
keep dashboard_password "$(random)"
keep mlflow_password "$(random)"
keep ray_token "$(random)"
keep hpo_metrics_token "$(random)"
keep grafana_password "$(random)"
keep hpo_database_url "postgresql+psycopg2://hpo:$(cat "$folder/hpo_password")@postgres:5432/hpo"
keep hpo_dashboard_database_url "postgresql+psycopg2://hpo_dashboard:$(cat "$folder/dashboard_password")@postgres:5432/hpo"
keep mlflow_database_url "postgresql+psycopg2://mlflow:$(cat "$folder/mlflow_password")@postgres:5432/mlflow"
