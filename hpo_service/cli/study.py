"""`hpo study`: create studies, look at them, steer them."""

import sys
import time
from typing import Annotated, Any

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.documents import apply_settings, read_document
from hpo_service.cli.figures import check_sentence
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table
from hpo_service.cli.views import STUDY_COLUMNS, show_report, show_study, show_warnings, study_row
from hpo_service.cli.watch import EXIT_STUDY_FAILED, watch_study
from hpo_service.client.http import Client, study_path
from hpo_service.core.errors import InvalidRequest

_POLL_SECONDS = 0.5

app = typer.Typer(name="study", help="Create studies, look at them, steer them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the study.", metavar="NAME")]
FileOption = Annotated[str, typer.Option("--file", "-f", help="Study spec, YAML or JSON; - is standard input.")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="Change one value of the file, such as budget.max_trials=8. Repeatable.")
]
NameOption = Annotated[str, typer.Option("--name", help="Name of the study, instead of the one in the file.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait for the check of the data.")]
WatchOption = Annotated[bool, typer.Option("--watch", help="Stay and show how it goes.")]


@app.command()
def create(
    file: FileOption,
    name: NameOption = "",
    watch: WatchOption = False,
    set_: SetOption = [],  # noqa: B006
    output: OutputOption = Format.TABLE,
) -> None:
    """Start a study. With --watch the exit code says how it ended: 0 completed, 3 failed."""
    spec = _spec(file, name, set_)
    with connect() as client:
        study = client.create_study(spec)
        show_warnings(study)
        if watch:
            say(f"Study {study['name']} is {study['state']}.")
            raise typer.Exit(watch_study(client, study["name"]))
        _show(study, output)


@app.command()
def validate(
    file: FileOption,
    name: NameOption = "",
    set_: SetOption = [],  # noqa: B006
    wait: WaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check a study without starting it: the space, its size, the time that it may take, the data, warnings.

    Exit code 3: the data would fail it.
    """
    with connect() as client:
        report = client.post("/v1/studies:validate", _spec(file, name, set_))
        if wait:
            report["data_check"] = _awaited(client, report["data_check"])
    if output is Format.JSON:
        show_json(report)
    else:
        show_report(report)
    if report["data_check"]["state"] == "failed":
        raise typer.Exit(EXIT_STUDY_FAILED)


@app.command("data-check")
def data_check(name: Name, wait: WaitOption = False, output: OutputOption = Format.TABLE) -> None:
    """What was found in the data of a study, as Markdown. Exit code 3: it fails the study."""
    with connect() as client:
        path = f"{study_path(name)}/data-check"
        check = client.get(path)
        if wait:
            check = _awaited(client, check)
        if output is Format.JSON:
            show_json(check)
        elif check["report"] is None:
            say(f"The data check of study {name}: {check_sentence(check)}.")
        else:
            typer.echo(client.get_response(path, format="md").text, nl=False)
    if check["state"] == "failed":
        raise typer.Exit(EXIT_STUDY_FAILED)


@app.command("list")
def list_studies(output: OutputOption = Format.TABLE) -> None:
    """All studies, the newest first."""
    with connect() as client:
        studies = list(client.pages("/v1/studies"))
    if output is Format.JSON:
        show_json(studies)
    else:
        show_table(STUDY_COLUMNS, [study_row(study) for study in studies])


@app.command()
def show(name: Name, output: OutputOption = Format.TABLE) -> None:
    """One study."""
    with connect() as client:
        _show(client.get(study_path(name)), output)


@app.command()
def watch(name: Name) -> None:
    """Follow a study to its end. Exit code 0: completed, 3: failed."""
    with connect() as client:
        raise typer.Exit(watch_study(client, name))


def _action(verb: str, help_text: str) -> None:
    def command(name: Name, output: OutputOption = Format.TABLE) -> None:
        with connect() as client:
            answer = client.post(f"{study_path(name)}:{verb}")
        if output is Format.JSON:
            show_json(answer)
        else:
            say(f"Study {name}: {verb} is accepted.")

    app.command(verb, help=help_text)(command)


_action("pause", "Stop at the next step boundary, keep everything for `resume`.")
_action("resume", "Go on with a paused study.")
_action("stop", "Let running slices finish, then complete the study; a second time: do not wait for its confirmation.")
_action("cancel", "End the study at the next step boundary.")


@app.command()
def clone(
    name: Name,
    new_name: Annotated[str, typer.Argument(help="Name of the new study.", metavar="NEW")],
    set_: SetOption = [],  # noqa: B006
    output: OutputOption = Format.TABLE,
) -> None:
    """Start a new study with the same spec, changed by --set."""
    changes = apply_settings({}, set_)
    with connect() as client:
        study = client.post(f"{study_path(name)}:clone", {"name": new_name, "changes": changes})
    show_warnings(study)
    _show(study, output)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget an ended study and its snapshots."""
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest(f"deleting {name} cannot be undone; say --yes where nobody can be asked.")
        typer.confirm(f"Delete study {name} and its snapshots?", abort=True, err=True)
    with connect() as client:
        client.delete_study(name)
    say(f"Study {name} is deleted.")


@app.command()
def extend(
    name: Name,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="A budget (not below what is spent) or a wider range: budget.max_trials=40, space.lora_r.high=64",
        ),
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Change the budget of a study or widen its numeric ranges, while it runs."""
    with connect() as client:
        answer = client.patch_study(name, apply_settings({}, set_))
    if output is Format.JSON:
        show_json(answer)
    else:
        # The answer is the study as it still stands: the dispatcher carries the extension out a moment later.
        say(f"Study {name}: {', '.join(set_)} is accepted.")


def _awaited(client: Client, check: dict[str, Any]) -> dict[str, Any]:
    """The check once it is no longer pending."""
    while check["state"] == "pending":
        time.sleep(_POLL_SECONDS)
        check = client.get(f"/v1/data-checks/{check['job']}")
    return check


def _spec(file: str, name: str, settings: list[str]) -> dict[str, Any]:
    spec = apply_settings(read_document(file), settings)
    return apply_settings(spec, [f"metadata.name={name}"]) if name else spec


def _show(study: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        show_json(study)
    else:
        show_study(study)
