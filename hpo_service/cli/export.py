"""`hpo export`: a promotion as a file, or as a pull request that changes one."""

from dataclasses import replace
from typing import Annotated

import typer

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
from hpo_service.cli.pull_request import propose
from hpo_service.cli.pull_request_body import body
from hpo_service.client.http import promotion_path
from hpo_service.core.errors import InvalidRequest


def export(
    promotion: Annotated[
        str, typer.Argument(help="NAME or NAME@VERSION; without a version the latest.", metavar="NAME[@VERSION]")
    ],
    format: FormatOption = ExportFormat.YAML,
    output: FileOption = None,
    merge: MergeOption = None,
    include: IncludeOption = None,
    gpus: GpusOption = 1,
    git_branch: BranchOption = None,
    pull_request: Annotated[
        bool,
        typer.Option(
            "--pull-request",
            help="Commit the file to a branch (default: hpo/NAME-VERSION), push it and open a pull or merge request "
            "with the evidence, by gh or glab; where these are not installed, print the commands and push nothing.",
        ),
    ] = False,
    strict: StrictOption = False,
) -> None:
    """Export a promotion, in the same formats as `hpo best`."""
    destination = Destination.of(
        output=output, merge=merge, branch=git_branch, include=include, gpus=gpus, strict=strict
    )
    if pull_request and output is None and merge is None:
        raise InvalidRequest("--pull-request needs the name of the file: add --merge FILE.yaml:KEY or --output FILE.")
    with connect() as client:
        exported = destination.fetch(client, promotion_path(promotion), format)
        which = exported.promotion or promotion
        found = client.get(promotion_path(which)) if pull_request else {}
        address = client.url
    subject = f"hpo: promotion {which}"
    if not pull_request:
        destination.deliver(exported, subject)
        return
    branch = git_branch or f"hpo/{which.replace('@', '-')}"
    delivered = replace(destination, branch=branch, pushed=True).deliver(exported, subject)
    if delivered.path is not None:
        title = f"Hyperparameters of {which} in {delivered.path.name}"
        propose(delivered.path, branch, title, body(found, delivered, address))
