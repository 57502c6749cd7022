#!/usr/bin/env bash
# One backup of the service: deploy/backup.sh [FOLDER], default HPO_BACKUPS, default ./backups.
#
# Writes FOLDER/<UTC time>/: database.dump (schemas hpo and optuna, from one moment), SHA256SUMS and, where HPO_SNAPSHOTS is
# a folder, snapshots/. They are copied before and after the database, so that all which it names are there; with rsync,
# files that the last backup has too are hard links to it. An object store has versions of its own.
# Keeps the newest HPO_BACKUPS_KEEP (14). Prints the new backup's folder.
#
# The database: HPO_DATABASE_URL, else the file hpo_database_url in HPO_SECRETS_DIR. pg_dump must be as new as the server.
set -euo pipefail
umask 077

folder="${1:-${HPO_BACKUPS:-./backups}}"
keep="${HPO_BACKUPS_KEEP:-14}"
case "$keep" in '' | 0 | *[!0-9]*) echo "HPO_BACKUPS_KEEP is '$keep'; it must be 1 or more" >&2; exit 2 ;; esac

# shellcheck source=deploy/database-url.sh
. "$(dirname "$0")/database-url.sh"
read_database_url

mkdir -p "$folder"
previous="$(find "$folder" -mindepth 1 -maxdepth 1 -type d -name '2*Z' | sort | tail -n 1)"
name="$(date -u +%Y%m%dT%H%M%SZ)"
part="$folder/$name.part"
mkdir "$part"
trap 'rm -rf "$part"' EXIT

copy_snapshots() { # what is removed meanwhile is no error, if another try finds everything
    case "${HPO_SNAPSHOTS:-}" in
        '' | *://*) return 0 ;;
    esac
    if [ ! -d "$HPO_SNAPSHOTS" ]; then
        echo "HPO_SNAPSHOTS is '$HPO_SNAPSHOTS', which is no folder; correct it, or unset it to leave snapshots out" >&2
        exit 2
    fi
    mkdir -p "$part/snapshots"
    for try in 1 2 3; do
        if copy_once; then
            return 0
        fi
        echo "snapshots changed while they were copied (try $try of 3)" >&2
    done
    exit 1
}

copy_once() {
    if ! command -v rsync >/dev/null; then
        cp --archive --update "$HPO_SNAPSHOTS/." "$part/snapshots/"
        return
    fi
    links=()
    if [ -n "$previous" ] && [ -d "$previous/snapshots" ]; then
        links=(--link-dest="$(cd "$previous/snapshots" && pwd)")
    fi
    rsync --archive "${links[@]}" "$HPO_SNAPSHOTS/" "$part/snapshots/"
}

copy_snapshots
# Row-level policies hold for the owner of the tables too; all projects are to be saved.
PGOPTIONS="${PGOPTIONS:-} -chpo.project_id=*" pg_dump --dbname="$DATABASE" --no-password --enable-row-security --format=custom --compress=6 --no-owner --no-privileges \
    --schema=hpo --schema=optuna --file="$part/database.dump"
pg_restore --list "$part/database.dump" >/dev/null
copy_snapshots

(cd "$part" && sha256sum database.dump >SHA256SUMS)
sync "$part"
mv "$part" "$folder/$name"
trap - EXIT

find "$folder" -mindepth 1 -maxdepth 1 -type d -name '2*Z' | sort | head -n "-$keep" | while read -r old; do
    rm -rf "$old"
done
echo "$folder/$name"
