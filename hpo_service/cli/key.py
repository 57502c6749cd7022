"""`hpo key`: API keys, made with the service's database at hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_service.auth.principals import Scope
from hpo_service.cli.durations import seconds_of
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table

if TYPE_CHECKING:
    from hpo_service.local.local_admin import Credentials
    from hpo_service.services.access.key_schemas import KeyDocument

app = typer.Typer(
    name="key", help="API keys. They need the service's database, so run them on its machine.", no_args_is_help=True
)

KEY_COLUMNS = ("id", "label", "state", "scopes", "made", "ends", "last used")
DEFAULT_SCOPES = (Scope.STUDY_READ, Scope.STUDY_WRITE)

Project = Annotated[str, typer.Option("--project", help="Whose keys.")]
Label = Annotated[str, typer.Argument(help="What the key is for.", metavar="LABEL")]


@app.command("create")
def create_key(
    label: Label = "cli",
    scopes: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help=f"What it may do; repeat it (default: {', '.join(DEFAULT_SCOPES)})."),
    ] = None,
    all_scopes: Annotated[bool, typer.Option("--all-scopes", help="Everything in its project.")] = False,
    expires: Annotated[str | None, typer.Option("--expires", help="Such as 90d, 12h (default: never).")] = None,
    project: Project = "default",
) -> None:
    """Make an API key and print it, once."""
    wanted = tuple(Scope) if all_scopes else tuple(scopes or DEFAULT_SCOPES)
    lifetime = None if expires is None else seconds_of(expires)
    with credentials() as made_here:
        made = made_here.create_key(label, wanted, project=project, lifetime_seconds=lifetime)
    say(f"Key {made.id} of project {project} may {', '.join(made.scopes)}; it {_end(made)}.")
    typer.echo(made.key)


@app.command("list")
def list_keys(project: Project = "default", output: OutputOption = Format.TABLE) -> None:
    """All keys of a project, the newest first."""
    with credentials() as made_here:
        found = made_here.list_keys(project)
    if output is Format.JSON:
        show_json([one.model_dump(mode="json") for one in found])
    else:
        show_table(KEY_COLUMNS, [key_row(one) for one in found])


@app.command("rotate")
def rotate_key(
    label: Label,
    overlap: Annotated[str, typer.Option("--overlap", help="So long the old key still works.")] = "7d",
    project: Project = "default",
) -> None:
    """Make a second key of a label and print it, once; the first one ends after the overlap."""
    from hpo_service.cli.services import load_settings
    from hpo_service.local.home import Home

    home = Home(load_settings().home_path())
    with credentials() as made_here:
        made = made_here.rotate_key(label, home, project=project, overlap_seconds=seconds_of(overlap))
    assert made.replaces is not None
    say(f"Key {made.id} replaces key {made.replaces.id}, which {_end(made.replaces)}; the new one {_end(made)}.")
    typer.echo(made.key)


@app.command("revoke")
def revoke_key(
    key_id: Annotated[int, typer.Argument(help="The number in hpo_key_NUMBER_….", metavar="NUMBER", min=1)],
    project: Project = "default",
) -> None:
    """End a key at once, with the browser sessions that it opened."""
    with credentials() as made_here:
        ended = made_here.revoke_key(key_id, project)
    say(f"Key {ended.id} ({ended.label}) of project {project} is revoked.")


@contextmanager
def credentials() -> Iterator["Credentials"]:
    """The database of this machine's service."""
    from hpo_service.cli.services import load_settings
    from hpo_service.local.local_admin import Credentials
    from hpo_service.local.supervisor import database_url

    with Credentials(database_url(load_settings())) as found:
        yield found


def key_row(key: "KeyDocument") -> list[object]:
    """A key as a row of KEY_COLUMNS."""
    times = (key.created_at, key.revoked_at or key.expires_at, key.last_used_at)
    return [key.id, key.label, key.state, ", ".join(key.scopes), *map(_minute, times)]


def _minute(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d %H:%M}"


def _end(key: "KeyDocument") -> str:
    return "never expires" if key.expires_at is None else f"ends at {key.expires_at:%Y-%m-%d %H:%M} UTC"
