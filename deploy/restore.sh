#!/usr/bin/env bash
# Brings a backup back: deploy/restore.sh BACKUP, into the database HPO_DATABASE_URL (or the file hpo_database_url in
# HPO_SECRETS_DIR), which must be there and must not hold the schemas hpo and optuna; and, where the backup has snapshots,
# into the folder HPO_SNAPSHOTS. All of the database or nothing of it. API and dispatcher must not run meanwhile.
#
# Afterwards: hpo migrate (a newer program brings the schema to its version), then start API and dispatcher. Slices that
# ran at the time of the backup are tried again from their snapshots.
set -euo pipefail

backup="${1:?name the folder of a backup, such as backups/20261125T023000Z}"
[ -f "$backup/database.dump" ] || { echo "$backup holds no database.dump" >&2; exit 2; }
(cd "$backup" && sha256sum --check --quiet SHA256SUMS) || { echo "$backup is damaged; take another one" >&2; exit 1; }

# shellcheck source=deploy/database-url.sh
. "$(dirname "$0")/database-url.sh"
read_database_url

there="$(psql --dbname="$DATABASE" --no-password --no-psqlrc --tuples-only --no-align --command="
    SELECT string_agg(nspname, ' and ') FROM pg_namespace WHERE nspname IN ('hpo', 'optuna')")"
if [ -n "$there" ]; then
    echo "the database holds the schemas $there; restore into an empty database, or drop them first" >&2
    exit 1
fi

if [ -d "$backup/snapshots" ]; then
    case "${HPO_SNAPSHOTS:-}" in
        '' | *://*) echo "the backup has snapshots; set HPO_SNAPSHOTS to the folder where they belong" >&2; exit 2 ;;
    esac
    mkdir -p "$HPO_SNAPSHOTS"
    cp --archive "$backup/snapshots/." "$HPO_SNAPSHOTS/"
fi
pg_restore --dbname="$DATABASE" --no-password --no-owner --no-privileges --exit-on-error --single-transaction \
    "$backup/database.dump"
# Rights are not in a backup: roles may be called otherwise here. The audit log's rows stay as they are.
psql --dbname="$DATABASE" --no-password --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --command="
    DO \$\$ BEGIN
        IF to_regclass('hpo.audit') IS NOT NULL THEN
            REVOKE UPDATE, DELETE, TRUNCATE ON hpo.audit FROM CURRENT_USER;
        END IF;
    END \$\$"
echo "restored $backup; now run: hpo migrate"
