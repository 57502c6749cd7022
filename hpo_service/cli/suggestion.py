"""`hpo study suggest-spec`: a spec to start from."""

from pathlib import Path
from typing import Annotated

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.output import say
from hpo_service.core.errors import InvalidRequest


def suggest_spec(
    model: Annotated[str, typer.Option("--model", help="Folder of the base model, as the service sees it.")],
    data: Annotated[str, typer.Option("--data", help="Rows to train on, as the service sees them.")],
    evaluation: Annotated[str | None, typer.Option("--eval", help="Rows to evaluate on.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the study.")] = None,
    file: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write it (default: stdout).")] = None,
) -> None:
    """Write a complete spec: space, search and budget, each with its reason, from model, data and earlier studies."""
    if file is not None and file.exists():
        raise InvalidRequest(f"{file} exists already; remove it or name another file.")
    body = {"model": model, "data": data, "eval": evaluation, "name": name}
    with connect() as client:
        text = client.post("/v1/studies:suggest", body)["text"]
    if file is None:
        typer.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    say(f"{file} is written. Check it with: hpo study validate -f {file}")
