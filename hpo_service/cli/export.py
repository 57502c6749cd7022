"""`hpo export`: a promotion as a file."""

from typing import Annotated

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.export_file import (
    BranchOption,
    Destination,
    ExportFormat,
    FileOption,
    FormatOption,
    MergeOption,
    StrictOption,
    fetch,
)
from hpo_service.client.http import promotion_path


def export(
    promotion: Annotated[
        str, typer.Argument(help="NAME or NAME@VERSION; without a version the latest.", metavar="NAME[@VERSION]")
    ],
    format: FormatOption = ExportFormat.YAML,
    output: FileOption = None,
    merge: MergeOption = None,
    git_branch: BranchOption = None,
    strict: StrictOption = False,
) -> None:
    """Export a promotion, in the same formats as `hpo best`."""
    destination = Destination(output=output, merge=merge, branch=git_branch)
    with connect() as client:
        text, which = fetch(client, f"{promotion_path(promotion)}/export", format, strict)
    destination.deliver(text, f"hpo: promotion {which or promotion}")
