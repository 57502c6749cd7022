"""`hpo project`: who is kept apart from whom."""

from typing import Annotated

import typer

from hpo_service.cli.key import credentials
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table

app = typer.Typer(
    name="project", help="Projects. They need the service's database, so run it on its machine.", no_args_is_help=True
)

PROJECT_COLUMNS = ("project", "promotions are approved", "made")


@app.command()
def create(name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.", metavar="NAME")]) -> None:
    """Make a project. Nothing of it can be seen with a key of another one."""
    with credentials() as made_here:
        made_here.create_project(name)
    say(f"Project {name} is there. A first key of it: hpo key create admin --project {name} --all-scopes")


@app.command("list")
def list_projects(output: OutputOption = Format.TABLE) -> None:
    """All projects, the oldest first."""
    with credentials() as made_here:
        found = made_here.list_projects()
    if output is Format.JSON:
        show_json([one.model_dump(mode="json") for one in found])
    else:
        rows = [(one.name, "yes" if one.promotion_approval else "no", f"{one.created_at:%Y-%m-%d}") for one in found]
        show_table(PROJECT_COLUMNS, rows)
