"""What `hpo doctor` asks the database: versions of the server and of both schemas, the clock, connections."""

from sqlalchemy.exc import SQLAlchemyError

from hpo_service.cli.findings import Finding, finding
from hpo_service.core.errors import HpoError
from hpo_service.core.settings import Settings
from hpo_service.local.supervisor import database_url
from hpo_service.storage.database.facts import DatabaseFacts, read_facts

_LEAST_SERVER = 15
_MOST_SKEW_SECONDS = 5.0
_MOST_CONNECTIONS_SHARE = 0.9


def check_database(settings: Settings) -> list[Finding]:
    """Nothing where the database does not answer: the check `database` says so."""
    try:
        facts = read_facts(database_url(settings))
    except (HpoError, SQLAlchemyError):
        return []
    return judge_database(facts)


def judge_database(facts: DatabaseFacts) -> list[Finding]:
    """A finding for each thing that has to fit."""
    major = int(facts.server.split(".")[0].split()[0])
    share = facts.connections / facts.most_connections
    return [
        finding(
            "postgresql",
            major >= _LEAST_SERVER,
            f"{facts.server}, {facts.size_bytes / 1024**2:.0f} MB",
            f"Use PostgreSQL {_LEAST_SERVER} or newer.",
        ),
        finding("schema", facts.revision == facts.head, _revisions(facts.revision, facts.head), _schema_remedy(facts)),
        finding(
            "optuna",
            facts.optuna_revision == facts.optuna_head and facts.optuna_revision is not None,
            f"{facts.optuna_library}, tables {_revisions(facts.optuna_revision, facts.optuna_head)}",
            "Install the Optuna that pyproject.toml names, run hpo migrate; other versions: optuna storage upgrade.",
        ),
        finding(
            "clock",
            abs(facts.clock_ahead_seconds) <= _MOST_SKEW_SECONDS,
            f"{facts.clock_ahead_seconds:+.2f} s against the database's",
            "Synchronize the clocks of this machine and of the database's (NTP): times in logs and in Optuna differ.",
        ),
        finding(
            "connections",
            share <= _MOST_CONNECTIONS_SHARE,
            f"{facts.connections} of {facts.most_connections}",
            "Raise max_connections of PostgreSQL, or end what holds them.",
        ),
    ]


def _revisions(found: str | None, wanted: str) -> str:
    if found is None:
        return "not there"
    return found if found == wanted else f"{found}, this program has {wanted}"


def _schema_remedy(facts: DatabaseFacts) -> str:
    if facts.revision is not None and facts.revision > facts.head:
        return "The database is of a newer version: upgrade this program."
    return "Run hpo migrate."
