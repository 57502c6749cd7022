#!/bin/sh
# Run once by the postgres image on an empty data folder: the roles and databases of the service, its dashboard and MLflow.
set -eu

secret() { cat "/run/secrets/$1"; }

psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set=hpo="$(secret hpo_password)" \
    --set=dashboard="$(secret dashboard_password)" \
    --set=mlflow="$(secret mlflow_password)" <<'SQL'
CREATE ROLE hpo LOGIN PASSWORD :'hpo';
CREATE ROLE hpo_dashboard LOGIN PASSWORD :'dashboard';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE hpo OWNER hpo ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE mlflow OWNER mlflow ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE hpo FROM PUBLIC;
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
GRANT CONNECT ON DATABASE hpo TO hpo_dashboard;
SQL
