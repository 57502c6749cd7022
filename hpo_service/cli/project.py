"""`hpo project`: who is kept apart from whom, and who may use how much."""

from typing import TYPE_CHECKING, Annotated

import typer

from hpo_service.cli.key import credentials
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table
from hpo_service.cli.sizes import limit_of

if TYPE_CHECKING:
    from hpo_service.services.access.quota_schemas import QuotaDocument

app = typer.Typer(
    name="project", help="Projects. They need the service's database, so run it on its machine.", no_args_is_help=True
)

_LIMITS = ("parallel_gpus", "gpu_hours_month", "studies", "stored_bytes")
_FIGURES = ("GPUs now", "GPU-hours this month", "open studies", "stored")
PROJECT_COLUMNS = ("project", "promotions are approved", "made", *_FIGURES)

Name = Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.", metavar="NAME")]


@app.command()
def create(name: Name) -> None:
    """Make a project. Nothing of it can be seen with a key of another one."""
    with credentials() as made_here:
        made_here.create_project(name)
    say(f"Project {name} is there. A first key of it: hpo key create admin --project {name} --all-scopes")


@app.command("list")
def list_projects(output: OutputOption = Format.TABLE) -> None:
    """All projects, the oldest first, with what each uses of what it may use."""
    with credentials() as made_here:
        found, quotas = made_here.list_projects(), made_here.list_quotas()
    if output is Format.JSON:
        shown = [one.model_dump(mode="json") | {"quota": quotas[one.name].model_dump(mode="json")} for one in found]
        show_json(shown)
        return
    rows = [
        (
            one.name,
            "yes" if one.promotion_approval else "no",
            f"{one.created_at:%Y-%m-%d}",
            *_figures(quotas[one.name]),
        )
        for one in found
    ]
    show_table(PROJECT_COLUMNS, rows)


@app.command()
def quota(
    name: Name,
    parallel_gpus: Annotated[
        str | None, typer.Option("--parallel-gpus", help="Devices that its slices hold at once.", metavar="N")
    ] = None,
    gpu_hours_month: Annotated[
        str | None, typer.Option("--gpu-hours-month", help="Of a calendar month (UTC).", metavar="H")
    ] = None,
    studies: Annotated[str | None, typer.Option("--studies", help="That have not ended.", metavar="N")] = None,
    stored_bytes: Annotated[
        str | None, typer.Option("--stored-bytes", help="Of snapshots, such as 500GB or 2TiB.", metavar="N")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what a project may use, or change it: `none` takes a limit away. Nothing that runs is stopped."""
    given = dict(zip(_LIMITS, (parallel_gpus, gpu_hours_month, studies, stored_bytes), strict=True))
    limits = {limit: limit_of(text, limit) for limit, text in given.items() if text is not None}
    with credentials() as made_here:
        found = made_here.change_quota(name, limits)
    if output is Format.JSON:
        show_json(found.model_dump(mode="json"))
    else:
        show_table(("of project " + name, "used / limit"), list(zip(_FIGURES, _figures(found), strict=True)))


def _figures(quota: "QuotaDocument") -> list[str]:
    used, limits = quota.used, quota.limits
    hours = None if limits.gpu_hours_month is None else f"{limits.gpu_hours_month:g}"
    return [
        _share(used.parallel_gpus, limits.parallel_gpus),
        _share(f"{used.gpu_hours_month:.1f}", hours),
        _share(used.studies, limits.studies),
        _share(_gigabytes(used.stored_bytes), _gigabytes(limits.stored_bytes)),
    ]


def _share(used: object, limit: object) -> str:
    shown = "?" if used is None else str(used)
    return shown if limit is None else f"{shown} / {limit}"


def _gigabytes(size_bytes: int | None) -> str | None:
    return None if size_bytes is None else f"{size_bytes / 1e9:.1f} GB"
