"""`hpo promote` and `hpo promotion`: parameters that may be used in production."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.delivery import DELIVERY_COLUMNS, deliveries_of, delivery_row
from hpo_service.cli.key import credentials
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_record, show_table
from hpo_service.client.http import promotion_path
from hpo_service.core.errors import InvalidRequest
from hpo_service.formatting.comparison import bill as bill_words
from hpo_service.formatting.comparison import losses_of
from hpo_service.formatting.values import plural

app = typer.Typer(name="promotion", help="Parameters that may be used in production.", no_args_is_help=True)

PROMOTION_COLUMNS = ("promotion", "study", "trial", "loss", "vs baseline", "by", "at", "state")
Json = dict[str, Any]

Which = Annotated[
    str, typer.Argument(help="NAME or NAME@VERSION; without a version the latest.", metavar="NAME[@VERSION]")
]
Note = Annotated[str, typer.Option("--note", help="For those who see it later.")]


class Switch(StrEnum):
    """Whether something is asked for."""

    ON = "on"
    OFF = "off"


def promote(
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    name: Annotated[str, typer.Option("--to", help="Name of the promotion; the next version is made.")],
    trial: Annotated[int | None, typer.Option("--trial", help="Number of the trial (default: the best).")] = None,
    note: Note = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Promote the best parameters of a study, after its snapshot was verified."""
    with connect() as client:
        made = client.promote(study, name, trial=trial, note=note)
    _told(made, output)


@app.command("list")
def list_promotions(
    name: Annotated[str | None, typer.Argument(help="Only versions of this name.", metavar="[NAME]")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Every version, the newest first."""
    with connect() as client:
        found = list(client.pages("/v1/promotions", **({"name": name} if name else {})))
    if output is Format.JSON:
        show_json(found)
    else:
        show_table(PROMOTION_COLUMNS, [promotion_row(one) for one in found])


@app.command()
def show(promotion: Which, output: OutputOption = Format.TABLE) -> None:
    """One promotion: parameters, losses, digests, environment, bill, and who made and approved it."""
    with connect() as client:
        found = client.get(promotion_path(promotion))
        made = [] if output is Format.JSON else deliveries_of(client, found)
    if output is Format.JSON:
        show_json(found)
        return
    show_promotion(found)
    if made:
        show_table(DELIVERY_COLUMNS, [delivery_row(one) for one in made])


@app.command()
def diff(
    before: Which,
    after: Annotated[str, typer.Argument(help="The later one.", metavar="NAME[@VERSION]")],
    output: OutputOption = Format.TABLE,
) -> None:
    """What differs between two promotions."""
    other = after if "@" in after else f"{after}@latest"
    with connect() as client:
        found = client.get(f"{promotion_path(before)}/diff", other=other)
    if output is Format.JSON:
        show_json(found)
        return
    rows = [(change["path"], change["before"], change["after"]) for change in found["changes"]]
    show_table(("value", found["before"], found["after"]), rows)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Name of the promotion.", metavar="NAME")],
    version: Annotated[int | None, typer.Option("--to", help="Version (default: the one before).", min=1)] = None,
    note: Note = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Make an earlier version the latest again, as a new version."""
    with connect() as client:
        made = client.post(f"/v1/promotions/{quote(name, safe='')}:rollback", {"version": version, "note": note})
    _told(made, output)


@app.command()
def approve(
    promotion: Annotated[str, typer.Argument(help="NAME@VERSION.", metavar="NAME@VERSION")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Approve a promotion that another key made; from then on it may be used."""
    if "@" not in promotion:
        raise InvalidRequest(f"{promotion} names no version; approve one, such as {promotion}@1.")
    with connect() as client:
        made = client.post(f"{promotion_path(promotion)}:approve")
    _told(made, output)


@app.command("approval")
def approval(
    switch: Annotated[Switch, typer.Argument(help="on: a second key has to approve what is promoted from now on.")],
    project: Annotated[str, typer.Option("--project", help="In which project.")] = "default",
) -> None:
    """Ask for approvals in a project. Needs the service's database, so run it on its machine."""
    with credentials() as made_here:
        made_here.require_approval(switch is Switch.ON, project)
    say(f"promotion_approval is {switch} in project {project}, for promotions that are made from now on.")


def promotion_row(found: Json) -> list[object]:
    """A promotion as a row of PROMOTION_COLUMNS."""
    return [
        f"{found['name']}@{found['version']}",
        found["study"],
        found["trial_number"],
        _loss(found),
        gain(found["comparison"]),
        found["promoted_by"],
        found["created_at"][:19],
        state(found),
    ]


def show_promotion(found: Json) -> None:
    """A promotion as a record, with its parameters."""
    losses, bill, digests = found["losses"], found["bill"], found["digests"]
    environment = found["environment"]
    show_record(
        {
            "promotion": f"{found['name']}@{found['version']}",
            "state": state(found),
            "study": f"{found['study']}, trial {found['trial_number']}",
            "verdict": found["verdict"],
            "against the baseline": against(found["comparison"]),
            "loss in the search": losses["searched_loss"],
            "confirmed loss": _mean(losses["confirmed_loss"], losses["confirmed_seeds"]),
            "test loss": _mean(losses["test_loss"], losses["confirmed_seeds"]),
            "made": f"{found['created_at'][:19]} by {found['promoted_by']}",
            "approved": f"{found['approved_at'][:19]} by {found['approved_by']}" if found["approved_by"] else None,
            "note": found["note"] or None,
            **{f"{name} SHA-256": digest for name, digest in digests.items()},
            "device": environment["device"] or None,
            "software": environment["software"] or None,
            "promoted with": environment["generator"],
            "took": bill_words(
                bill["study_seconds"], bill["confirmation_seconds"], bill["study_usd"] + bill["confirmation_usd"]
            ),
        }
    )
    show_table(("parameter", "value"), list(found["parameters"].items()))


def state(found: Json) -> str:
    """Whether it may be used, in words."""
    if not found["effective"]:
        return "waits for approval"
    return f"repeats @{found['rollback_of']}" if found["rollback_of"] else "may be used"


def gain(comparison: Json | None) -> str:
    """The difference to the baseline with its interval."""
    if comparison is None:
        return "-"
    width = "" if comparison["half_width"] is None else f" ± {comparison['half_width']:.4f}"
    return f"{comparison['difference']:+.4f}{width}"


def against(comparison: Json | None) -> str | None:
    """The difference to the baseline and both losses that it is of."""
    if comparison is None:
        return None
    names = ("loss", "baseline_loss", "examples", "baseline_examples", "seeds")
    return f"{gain(comparison)} ({losses_of(**{name: comparison[name] for name in names})})"


def _mean(loss: float | None, seeds: int) -> str | None:
    return None if loss is None else f"{loss:.4f} (mean over {plural(seeds, 'new seed')})"


def _loss(found: Json) -> float | None:
    losses = found["losses"]
    known: float | None = losses["searched_loss"] if losses["confirmed_loss"] is None else losses["confirmed_loss"]
    return known


def _told(made: Json, output: Format) -> None:
    if output is Format.JSON:
        show_json(made)
        return
    label = f"{made['name']}@{made['version']}"
    say(f"{label}: trial {made['trial_number']} of study {made['study']}. {made['verdict']}")
    if made["effective"]:
        say(f"It may be used: hpo export {label} --format yaml -o best.yaml, or hpo deliver {label} --merge")
    else:
        say(f"It waits for approval by another key: hpo promotion approve {label}")
