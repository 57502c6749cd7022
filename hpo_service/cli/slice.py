"""`hpo slice`: what was dispatched for a study."""

from typing import Annotated, Any

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.output import Format, OutputOption, show_json, show_table
from hpo_service.cli.views import bill
from hpo_service.client.http import study_path

app = typer.Typer(name="slice", help="What was dispatched for a study.", no_args_is_help=True)

SLICE_COLUMNS = ("slice", "trial", "to", "state", "attempt", "worker", "now", "time", "cost", "failed attempts")


@app.callback()
def slice_() -> None:
    """What was dispatched for a study."""


@app.command("list")
def list_slices(
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    state: Annotated[str, typer.Option("--state", help="Only waiting, running, done, failed or dropped ones.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """All slices of a study: a trial on its way to one rung, with its worker and its retries by cause."""
    with connect() as client:
        found = list(client.pages(f"{study_path(study)}/slices", **({"state": state} if state else {})))
    if output is Format.JSON:
        show_json(found)
    else:
        show_table(SLICE_COLUMNS, [slice_row(piece) for piece in found])


def slice_row(piece: dict[str, Any]) -> list[object]:
    """A slice as a row of SLICE_COLUMNS."""
    progress = piece["progress"] if piece["state"] == "running" else {}
    now = f"{progress['phase']} at {progress['examples_seen']}" if "phase" in progress else None
    causes = ", ".join(f"{count} {cause}" for cause, count in piece["failures_by_cause"].items())
    return [
        piece["id"],
        piece["trial_number"],
        piece["until_examples"],
        piece["state"],
        piece["attempt"],
        piece["worker"],
        now,
        *bill(piece["seconds"], piece["cost_usd"], estimated=piece["lost_seconds"] > 0),
        causes or None,
    ]
