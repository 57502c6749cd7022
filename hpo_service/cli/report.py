"""`hpo report`: a study as one document for people."""

from pathlib import Path
from typing import Annotated

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.export_file import write
from hpo_service.cli.output import say
from hpo_service.client.http import study_path
from hpo_service.core.errors import InvalidRequest

_FORMATS = {".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown"}


def report(
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write: .html or .md (default: Markdown to stdout)."),
    ] = None,
) -> None:
    """A study as one document: what to use and why, plots, cost, failures, data, spec."""
    format = "markdown" if output is None else _format_of(output)
    with connect() as client:
        text = client.get_response(f"{study_path(study)}/report", format=format).text
    if output is None:
        typer.echo(text, nl=False)
        return
    write(output, text)
    say(f"Written to {output}.")


def _format_of(path: Path) -> str:
    format = _FORMATS.get(path.suffix.lower())
    if format is None:
        raise InvalidRequest(f"--output {path} is neither .html nor .md; name the file so that its format is known.")
    return format
