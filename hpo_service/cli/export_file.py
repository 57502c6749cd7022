"""What `hpo best` and `hpo export` share: formats, and where the file goes."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpo_service.cli.git_branch import commit_file, read_base
from hpo_service.cli.output import say
from hpo_service.cli.yaml_merge import merge
from hpo_service.client.http import Client
from hpo_service.core.errors import InvalidRequest, SetupError


class ExportFormat(StrEnum):
    """What the file is for."""

    YAML = "yaml"
    JSON = "json"
    ENV = "env"
    HF = "hf"
    PEFT = "peft"
    TRL = "trl"
    AXOLOTL = "axolotl"
    LLAMAFACTORY = "llamafactory"
    DEEPSPEED = "deepspeed"
    HELM = "helm"
    KUSTOMIZE = "kustomize"
    HYDRA = "hydra"


_FORMAT_HELP = (
    "yaml, json: for `python -m trainer run`; env: variables; hf: TrainingArguments; peft: adapter_config.json; "
    "trl, axolotl, llamafactory, deepspeed: their own files; helm, kustomize, hydra: for deployments."
)

FormatOption = Annotated[ExportFormat, typer.Option("--format", help=_FORMAT_HELP)]
FileOption = Annotated[Path | None, typer.Option("--output", "-o", help="File to write [default: stdout].")]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail if the format has no key for something that matters.")
]
MergeOption = Annotated[
    str | None,
    typer.Option(
        "--merge",
        metavar="FILE.yaml:PATH.TO.KEY",
        help="Put the values under a key of this YAML file; the rest of it, comments too, stays. "
        "Without a path: at its top.",
    ),
]
BranchOption = Annotated[
    str | None,
    typer.Option(
        "--git-branch", help="Commit the file to this branch instead of writing it. Nothing is checked out or pushed."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where an exported file goes. Raises InvalidRequest for options that do not go together."""

    output: Path | None = None
    merge: str | None = None
    branch: str | None = None

    def __post_init__(self) -> None:
        if self.output is not None and self.merge is not None:
            raise InvalidRequest("--output writes a whole file and --merge changes a part of one; use one of them.")
        if self.branch is not None and self.output is None and self.merge is None:
            raise InvalidRequest("--git-branch needs the name of the file: add --output FILE or --merge FILE.yaml:KEY.")

    def deliver(self, text: str, subject: str) -> None:
        """Print, write, merge or commit. `subject` is the first line of a commit.

        Raises:
            InvalidRequest: the file to merge into, or the branch, cannot take it.
            SetupError: the file cannot be written, or git fails.
        """
        if self.merge is not None:
            name, _, key = self.merge.partition(":")
            path = Path(name)
            base = _read(path) if self.branch is None else read_base(path, self.branch)
            self._put(path, merge(base, key, text, name), subject)
        elif self.output is not None:
            self._put(self.output, text, subject)
        else:
            typer.echo(text, nl=False)

    def _put(self, path: Path, text: str, subject: str) -> None:
        if self.branch is None:
            write(path, text)
            say(f"Written to {path}.")
            return
        commit = commit_file(path, text, self.branch, subject)
        if commit is None:
            say(f"Branch {self.branch} holds this {path} already; nothing to commit.")
        else:
            say(f"Committed {path} to branch {self.branch} ({commit[:12]}); nothing was pushed.")


def fetch(client: Client, path: str, format: ExportFormat, strict: bool) -> tuple[str, str]:
    """The file's text, and the promotion that it comes from. What the format cannot express is said on stderr."""
    answer = client.get_response(path, format=format.value, strict=str(strict).lower())
    dropped = answer.headers.get("X-Dropped", "")
    if dropped:
        say(f"Format {format} has no place for: {dropped}.")
    return answer.text, answer.headers.get("X-Promotion", "")


def write(path: Path, text: str) -> None:
    """Replace the file at `path` as a whole. Raises SetupError if it cannot be written."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--merge: {path} cannot be read: {error}. Make the file first.") from error
