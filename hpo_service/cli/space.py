"""`hpo space`: the search spaces that ship with the service."""

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.output import Format, OutputOption, show_json, show_table

app = typer.Typer(name="space", help="Search spaces that ship with the service.", no_args_is_help=True)


@app.callback()
def _spaces() -> None:
    """Search spaces that ship with the service."""


@app.command("list")
def list_spaces(output: OutputOption = Format.TABLE) -> None:
    """All presets, for `preset:` in a study."""
    with connect() as client:
        spaces = list(client.pages("/v1/search-spaces"))
    if output is Format.JSON:
        show_json(spaces)
    else:
        show_table(["preset", "title"], [[space.get("name"), space.get("title")] for space in spaces])
