# Read by backup.sh and restore.sh. Sets DATABASE, a URL without the password, and PGPASSWORD: what is on a command line
# is seen by every user of the machine.
# shellcheck shell=bash

read_database_url() {
    local url="${HPO_DATABASE_URL:-}" secret="${HPO_SECRETS_DIR:-/run/secrets}/hpo_database_url"
    if [ -z "$url" ] && [ -r "$secret" ]; then
        url="$(cat "$secret")"
    fi
    if [ -z "$url" ]; then
        echo "HPO_DATABASE_URL is not set; set it to a postgresql:// URL, or put it into $secret" >&2
        exit 2
    fi
    url="postgresql://${url#*://}"
    if [[ "$url" =~ ^(postgresql://[^:/@]*):([^@]*)@(.*)$ ]]; then
        local encoded="${BASH_REMATCH[2]//\\/\\\\}"
        printf -v PGPASSWORD '%b' "${encoded//%/\\x}"
        export PGPASSWORD
        url="${BASH_REMATCH[1]}@${BASH_REMATCH[3]}"
    fi
    # shellcheck disable=SC2034 # for the script that reads this
    DATABASE="$url"
}
