"""`hpo worker`: where work runs, and taking workers out of it."""

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table

app = typer.Typer(name="worker", help="Where work runs, and taking workers out of it.", no_args_is_help=True)

WORKER_COLUMNS = ("worker", "state", "places", "device", "auto dtype", "repeats", "runs", "since", "message")

#: whether its steps can be repeated bit for bit
_REPEATS = {None: "", True: "yes", False: "no"}

Name = Annotated[str, typer.Argument(help="Name of the worker.", metavar="NAME")]
Reason = Annotated[str, typer.Option("--reason", help="For those who see it later.")]
Gone = Annotated[bool, typer.Option("--gone", help="With those whose process has ended.")]


@app.command("list")
def list_workers(gone: Gone = False, output: OutputOption = Format.TABLE) -> None:
    """All workers, the newest first, with what they run; quarantined ones with the reason."""
    with connect() as client:
        workers = list(client.pages("/v1/workers", gone=str(gone).lower()))
    if output is Format.JSON:
        show_json(workers)
    else:
        show_table(WORKER_COLUMNS, [worker_row(worker) for worker in workers])


@app.command()
def drain(name: Name, reason: Reason = "", output: OutputOption = Format.TABLE) -> None:
    """Let a worker end at the next step boundary and a fresh one take its place; its slices go on elsewhere."""
    _ask("drain", name, reason, output)


@app.command()
def quarantine(name: Name, reason: Reason = "", output: OutputOption = Format.TABLE) -> None:
    """As drain, but no worker is started at its places (node and device) until it is released."""
    _ask("quarantine", name, reason, output)


@app.command()
def release(name: Name, output: OutputOption = Format.TABLE) -> None:
    """Let the places of a quarantined worker have workers again."""
    _ask("release", name, "", output)


def worker_row(worker: dict[str, Any]) -> list[object]:
    """A worker as a row of WORKER_COLUMNS."""
    asked = f" ({', '.join(worker['pending'])} asked for)" if worker["pending"] else ""
    return [
        worker["name"],
        worker["state"] + asked,
        ", ".join(worker["places"]) or worker["node"],
        worker["device"],
        worker["auto_dtype"],
        _REPEATS[worker["repeatable"]],
        ", ".join(f"{held['study']} {held['trial_number']}" for held in worker["slices"]),
        worker["started_at"][:19],
        worker["message"],
    ]


def _ask(verb: str, name: str, reason: str, output: Format) -> None:
    query = f"?{urlencode({'reason': reason})}" if reason else ""
    with connect() as client:
        worker = client.post(f"/v1/workers/{quote(name, safe='')}:{verb}{query}")
    if output is Format.JSON:
        show_json(worker)
    else:
        say(f"Worker {name}: {verb} is accepted.")
