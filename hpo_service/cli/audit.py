"""`hpo audit`: who changed what, and whether the log of it is whole."""

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.durations import seconds_of
from hpo_service.cli.key import credentials
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table
from hpo_service.core.errors import InvalidRequest
from hpo_service.storage.audit_chain import Head

app = typer.Typer(name="audit", help="Who changed what. Rows are only ever added.", no_args_is_help=True)

AUDIT_COLUMNS = ("row", "at", "who", "action", "object", "outcome", "from", "details")
CHAIN_COLUMNS = ("project", "rows", "state", "last row")
EXIT_BROKEN = 1


@app.command("list")
def list_audit(
    since: Annotated[str | None, typer.Option("--since", help="Of the last 7d, 12h, … (default: ever).")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this one, such as create_key.")] = None,
    key: Annotated[int | None, typer.Option("--key", help="Only what the key hpo_key_NUMBER_… did.", min=1)] = None,
    limit: Annotated[int, typer.Option("--limit", help="So many rows at most.", min=1)] = 100,
    output: OutputOption = Format.TABLE,
) -> None:
    """What was changed in the key's project, the newest first. Needs the scope audit:read."""
    query: dict[str, str | int] = {"page_size": min(limit, 500)}
    if since is not None:
        query["since"] = (datetime.now(UTC) - timedelta(seconds=seconds_of(since))).isoformat()
    query |= {"action": action} if action else {}
    query |= {"key_id": key} if key else {}
    with connect() as client:
        found = list(islice(client.pages("/v1/audit", **query), limit))
    if output is Format.JSON:
        show_json(found)
    else:
        show_table(AUDIT_COLUMNS, [audit_row(one) for one in found])


@app.command()
def verify(
    project: Annotated[str | None, typer.Option("--project", help="Of this one (default: all).")] = None,
    known: Annotated[
        str | None, typer.Option("--known", help="A row that you wrote down, NUMBER:HASH; needs --project.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Recompute the chain of hashes, with the service's database at hand; exit code 1 where it is broken."""
    if known is not None and project is None:
        raise InvalidRequest("--known is a row of one project; name it with --project.")
    with credentials() as made_here:
        found = list(made_here.verify_audit(project, None if known is None else parse_row(known)))
    if output is Format.JSON:
        show_json(
            [
                {"project": name, "rows": one.head.number, "hash": one.head.hash, "broken": one.broken, "why": one.why}
                for name, one in found
            ]
        )
    else:
        rows = [
            (name, one.head.number, "whole" if one.broken is None else "broken", f"{one.head.number}:{one.head.hash}")
            for name, one in found
        ]
        show_table(CHAIN_COLUMNS, rows)
    broken = [(name, one) for name, one in found if one.broken is not None]
    for name, one in broken:
        say(f"Error: row {one.broken} of project {name}: {one.why}.")
    if broken:
        raise typer.Exit(EXIT_BROKEN)


def audit_row(row: dict[str, Any]) -> list[object]:
    """A row of the log as one of AUDIT_COLUMNS."""
    told = {name: value for name, value in row["details"].items() if name != "body_sha256"}
    outcome = (
        row["outcome"] if row["status"] is None or row["outcome"] == "done" else f"{row['outcome']} {row['status']}"
    )
    return [row["number"], row["at"][:19], row["who"], row["action"], row["object"], outcome, row["client"], told]


def parse_row(text: str) -> Head:
    """`NUMBER:HASH`. Raises InvalidRequest."""
    match = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", text)
    if match is None:
        raise InvalidRequest(
            f"{text[:100]!r} is no row of the audit log; write NUMBER:HASH as `hpo audit verify` does."
        )
    return Head(int(match[1]), match[2])
