"""What `hpo best` and `hpo export` share: formats, and where the file goes."""

import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hpo_service.cli.git_branch import commit_file, read_base
from hpo_service.cli.merge import Change, included, look_up, merge, missed, select, unneeded
from hpo_service.cli.output import say
from hpo_service.client.http import Client
from hpo_service.core.errors import InvalidRequest, SetupError
from hpo_service.core.export_groups import GROUPS, Group

Json = dict[str, Any]


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
FileOption = Annotated[Path | None, typer.Option("--output", "-o", help="File to write (default: stdout).")]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail and write nothing if the format has no key for something that matters, or if the file of --merge "
        "would not say what was trained.",
    ),
]
MergeOption = Annotated[
    str | None,
    typer.Option(
        "--merge",
        metavar="FILE[:PATH.TO.KEY]",
        help="Put the hyperparameters under a key of this YAML or JSON file, without a key at its top. Every other "
        "byte of it stays; what is not written is listed, and last what the file then says otherwise than was trained.",
    ),
]
IncludeOption = Annotated[
    str | None,
    typer.Option(
        "--include",
        metavar="GROUP,...",
        help="With --merge, write these too: "
        + "; ".join(f"{group}: {words}" for group, words in GROUPS.items())
        + ".",
    ),
]
GpusOption = Annotated[
    int,
    typer.Option("--gpus", min=1, help="With --merge: how many GPUs train with the file, which share a batch."),
]
BranchOption = Annotated[
    str | None,
    typer.Option(
        "--git-branch", help="Commit the file to this branch instead of writing it. Nothing is checked out or pushed."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What the service answered: a file, or its values one by one. `promotion` is `NAME@VERSION` or ""."""

    text: str
    values: Json | None
    promotion: str


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """Where the file is now. Without a branch or with nothing new there is no commit.

    `missed` are sentences on what the file says otherwise than it was trained.
    """

    path: Path | None
    commit: str | None = None
    changes: tuple[Change, ...] | None = None  #: None: the file was written as a whole
    missed: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    batch: str | None = None


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where an exported file goes. Raises InvalidRequest for options that do not go together."""

    output: Path | None = None
    merge: str | None = None
    branch: str | None = None
    include: frozenset[Group] = frozenset()
    gpus: int = 1
    strict: bool = False  #: whether a file that says less than the whole is an error
    pushed: bool = False  #: whether the branch goes on to others, who then say so

    @classmethod
    def of(
        cls,
        *,
        output: Path | None,
        merge: str | None,
        branch: str | None,
        include: str | None,
        gpus: int,
        strict: bool,
    ) -> "Destination":
        """From the options of a command."""
        if merge is None and (include is not None or gpus != 1):
            raise InvalidRequest("--include and --gpus say what is merged; use them with --merge FILE.")
        return cls(output=output, merge=merge, branch=branch, include=included(include), gpus=gpus, strict=strict)

    def __post_init__(self) -> None:
        if self.output is not None and self.merge is not None:
            raise InvalidRequest("--output writes a whole file and --merge changes a part of one; use one of them.")
        if self.branch is not None and self.output is None and self.merge is None:
            raise InvalidRequest("--git-branch needs the name of the file: add --output FILE or --merge FILE.yaml:KEY.")

    def fetch(self, client: Client, path: str, format: ExportFormat) -> Exported:
        """What is delivered. What the format cannot express is said on stderr."""
        query = {"format": format.value, "strict": str(self.strict).lower()}
        if self.merge is not None:
            values = client.get(f"{path}/values", **query)
            _say_dropped(format, ", ".join(values["dropped"]))
            return Exported(text="", values=values, promotion=values["promotion"] or "")
        answer = client.get_response(f"{path}/export", **query)
        _say_dropped(format, answer.headers.get("X-Dropped", ""))
        return Exported(text=answer.text, values=None, promotion=answer.headers.get("X-Promotion", ""))

    def deliver(self, exported: Exported, subject: str) -> Delivered:
        """Print, write, merge or commit. `subject` is the first line of a commit.

        Raises:
            InvalidRequest: the file to merge into, or the branch, cannot take it.
            SetupError: the file cannot be written, or git fails.
        """
        if self.merge is not None and exported.values is not None:
            return self._merge(self.merge, exported.values, subject)
        if self.output is not None:
            return Delivered(path=self.output, commit=self._put(self.output, exported.text, subject))
        typer.echo(exported.text, nl=False)
        return Delivered(path=None)

    def _merge(self, where: str, values: Json, subject: str) -> Delivered:
        name, _, key = where.partition(":")
        path = Path(name)
        base = _read(path) if self.branch is None else read_base(path, self.branch)
        selection = select(values, self.include, self.gpus, look_up(base, key, name))
        merged = merge(base, key, selection.settings, values["origin"], name)
        if self.strict:
            _require_whole(name, missed((*selection.unwritten, *merged.refused), selection.beside))
        now = select(values, self.include, self.gpus, look_up(merged.text, key, name))  # lines have moved
        unwritten = unneeded((*now.unwritten, *merged.unwritten), selection.left)
        if not merged.has_origin and merged.changes:
            unwritten = (*unwritten, "where the values come from: a comment has no place there")
        commit = self._put(path, merged.text, subject, unchanged=merged.text == base)
        delivered = Delivered(
            path=path,
            commit=commit,
            changes=merged.changes,
            missed=missed((*now.unwritten, *merged.unwritten), now.beside),
            unwritten=unwritten,
            batch=selection.batch,
        )
        _say_merged(name, delivered, len(merged.same))
        return delivered

    def _put(self, path: Path, text: str, subject: str, *, unchanged: bool = False) -> str | None:
        if self.branch is None:
            if not unchanged:
                write(path, text)
            say(f"{path} has these values already; nothing was written." if unchanged else f"Written to {path}.")
            return None
        commit = commit_file(path, text, self.branch, subject)
        if commit is None:
            say(f"Branch {self.branch} holds this {path} already; nothing to commit.")
        else:
            say(
                f"Committed {path} to branch {self.branch} ({commit[:12]})"
                f"{'' if self.pushed else '; nothing was pushed'}."
            )
        return commit


def write(path: Path, text: str) -> None:
    """Replace the file at `path` as a whole; of a link, the file that it leads to. Its mode stays.

    Raises:
        SetupError: it cannot be written.
    """
    try:
        place = path.resolve()
        unfinished = place.with_name(f".{place.name}.part")
        unfinished.write_bytes(text.encode())
        if place.exists():
            shutil.copymode(place, unfinished)
        unfinished.replace(place)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}.") from error


def _say_dropped(format: ExportFormat, names: str) -> None:
    if names:
        say(f"Format {format} has no place for: {names}.")


def _require_whole(name: str, missed: tuple[str, ...]) -> None:
    """Raises InvalidRequest if a file would say something else than was trained."""
    if missed:
        raise InvalidRequest(
            f"--strict: nothing was written to {name}, which would not say what was trained. Mend these in the file, "
            f"or leave --strict out: {'; '.join(missed)}."
        )


def _say_merged(name: str, delivered: Delivered, same: int) -> None:
    """What was done, and last what is not as it was trained, so that it is seen."""
    for change in delivered.changes or ():
        was = "added" if change.before is None else f"was {change.before or 'empty'}"
        say(f"{name}: {change.name} is now {change.after} ({was}).")
    if same:
        say(f"{name}: {same} {'value was' if same == 1 else 'values were'} the same already.")
    if delivered.batch is not None:
        say(f"{name}: {delivered.batch}.")
    for sentence in delivered.unwritten:
        say(f"Not written: {sentence}.")
    if delivered.missed:
        say(f"Warning: {name} does not say what was trained:")
    for sentence in delivered.missed:
        say(f"  Not written: {sentence}.")


def _read(path: Path) -> str:
    """The text, byte for byte."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--merge: {path} cannot be read: {error}. Make the file first.") from error
