"""`hpo best`: the best parameters of a study, as a file that production tools read."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpo_service.cli.confirmation import confirmed_words
from hpo_service.cli.connection import connect
from hpo_service.cli.output import say
from hpo_service.client import Client, study_path
from hpo_service.errors import SetupError


class ExportFormat(StrEnum):
    """What the file is for."""

    YAML = "yaml"
    JSON = "json"
    HF = "hf"
    PEFT = "peft"


def best(
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="yaml, json: for `python -m trainer run`; hf: TrainingArguments; peft: adapter_config.json.",
        ),
    ] = ExportFormat.YAML,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write [default: stdout].")] = None,
) -> None:
    """Export the best parameters of a study."""
    with connect() as client:
        text = export(client, study, format)
        known = confirmed_words(client.get(f"{study_path(study)}/best"))
    if known is not None:
        say(f"Confirmed: {known}.")
    if output is None:
        typer.echo(text, nl=False)
        return
    write(output, text)
    say(f"Written to {output}.")


def export(client: Client, study: str, format: ExportFormat) -> str:
    """The file's text. What the format cannot express is said on stderr."""
    answer = client.get_response(f"{study_path(study)}/best/export", format=format.value)
    dropped = answer.headers.get("X-Dropped", "")
    if dropped:
        say(f"Format {format} has no place for: {dropped}.")
    return answer.text


def write(path: Path, text: str) -> None:
    """Replace the file at `path` as a whole. Raises SetupError if it cannot be written."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}.") from error
