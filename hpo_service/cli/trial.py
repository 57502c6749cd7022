"""`hpo trial`: the trials of a study."""

from typing import Annotated

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.documents import apply_settings
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table
from hpo_service.cli.views import TRIAL_COLUMNS, searched_names, show_trial, trial_row
from hpo_service.client.http import study_path
from hpo_service.core.errors import InvalidRequest

app = typer.Typer(name="trial", help="The trials of a study.", no_args_is_help=True)

Study = Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")]
Number = Annotated[int, typer.Argument(help="Number of the trial.", metavar="NUMBER", min=0)]


@app.command("list")
def list_trials(study: Study, output: OutputOption = Format.TABLE) -> None:
    """All trials of a study."""
    with connect() as client:
        trials = list(client.pages(f"{study_path(study)}/trials"))
    if output is Format.JSON:
        show_json(trials)
        return
    searched = searched_names(trials)
    show_table((*TRIAL_COLUMNS, *searched, "note"), [trial_row(trial, searched) for trial in trials])


@app.command()
def show(study: Study, number: Number, output: OutputOption = Format.TABLE) -> None:
    """One trial with its rungs and attempts."""
    with connect() as client:
        trial = client.get(f"{study_path(study)}/trials/{number}")
    if output is Format.JSON:
        show_json(trial)
    else:
        show_trial(trial)


@app.command()
def logs(study: Study, number: Number) -> None:
    """What the worker said about a trial."""
    with connect() as client:
        typer.echo(client.get_response(f"{study_path(study)}/trials/{number}/logs").text, nl=False)


@app.command()
def enqueue(
    study: Study,
    parameters: Annotated[
        list[str], typer.Argument(help="Values to try, such as learning_rate=3e-4.", metavar="PARAMETER=VALUE")
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Run a point that you know to be good next; what is left out is sampled."""
    point = apply_settings({}, parameters)
    if any(isinstance(value, dict) for value in point.values()):
        raise InvalidRequest("a point is a list of name=value.")
    with connect() as client:
        answer = client.post(f"{study_path(study)}/trials", {"parameters": point})
    if output is Format.JSON:
        show_json(answer)
    else:
        say(f"Study {study}: the point is queued.")
