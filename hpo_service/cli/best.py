"""`hpo best`: the best parameters of a study, as a file that production tools read."""

from typing import Annotated

import typer

from hpo_service.cli.confirmation import confirmed_words
from hpo_service.cli.connection import connect
from hpo_service.cli.export_file import (
    BranchOption,
    Destination,
    ExportFormat,
    FileOption,
    FormatOption,
    GpusOption,
    IncludeOption,
    MergeOption,
    StrictOption,
)
from hpo_service.cli.output import say
from hpo_service.client.http import study_path


def best(
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    format: FormatOption = ExportFormat.YAML,
    output: FileOption = None,
    merge: MergeOption = None,
    include: IncludeOption = None,
    gpus: GpusOption = 1,
    git_branch: BranchOption = None,
    strict: StrictOption = False,
) -> None:
    """Export the best parameters of a study."""
    destination = Destination.of(
        output=output, merge=merge, branch=git_branch, include=include, gpus=gpus, strict=strict
    )
    with connect() as client:
        exported = destination.fetch(client, f"{study_path(study)}/best", format)
        found = client.get(f"{study_path(study)}/best")
    known = confirmed_words(found)
    if known is not None:
        say(f"Confirmed: {known}.")
    destination.deliver(exported, f"hpo: parameters of study {study}, trial {found['trial_number']}")
