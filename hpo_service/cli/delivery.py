"""`hpo deliver` and `hpo delivery`: from a promotion to a model."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hpo_service.cli.artifact_download import require_new, unpack
from hpo_service.cli.connection import connect
from hpo_service.cli.figures import megabytes
from hpo_service.cli.follow import patient
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_record, show_table
from hpo_service.client.http import Client
from hpo_service.core.errors import NotFound

app = typer.Typer(name="delivery", help="Models that were made of promotions.", no_args_is_help=True)

DELIVERY_COLUMNS = ("delivery", "promotion", "what", "state", "loss", "cost", "by", "at", "message")
_STEP_COLUMNS = ("job", "step", "state", "attempt", "worker", "device seconds", "USD", "message")
_ARTIFACT_COLUMNS = ("artifact", "size", "perplexity", "SHA-256", "location")
_POLL_SECONDS = 0.5
EXIT_FAILED = 3
Json = dict[str, Any]

Delivery = Annotated[int, typer.Argument(help="Number of the delivery.", metavar="DELIVERY", min=1)]


class Variant(StrEnum):
    """What a merged model can be made."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q5_K_M = "q5_k_m"
    Q4_K_M = "q4_k_m"
    GPTQ_W4A16 = "gptq-w4a16"


def deliver(
    promotion: Annotated[
        str, typer.Argument(help="NAME or NAME@VERSION; without a version the latest.", metavar="NAME[@VERSION]")
    ],
    merge: Annotated[bool, typer.Option("--merge", help="Merge the adapter into its base.")] = False,
    quantize: Annotated[
        Variant | None, typer.Option("--quantize", help="Make this variant of the merged model, too.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train again, even where an adapter of the same trial is there.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is there, or failed.")] = True,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a model of a promotion: its adapter at full budget, merged and quantized if asked for."""
    with connect() as client:
        made = client.deliver(promotion, merge=merge, quantize=quantize, retrain=retrain)
        how = "begins with the adapter that is there" if made["reuses"] else "trains the adapter"
        say(f"Delivery {made['id']} of {made['promotion']}: {how}.")
        if wait:
            made = _followed(client, made)
    if output is Format.JSON:
        show_json(made)
    elif wait:
        show_delivery(made)
    else:
        say(f"See how far it is: hpo delivery show {made['id']}")
    if made["state"] == "failed":
        say(f"Error: {made['message']}")
        raise typer.Exit(EXIT_FAILED)


@app.command("list")
def list_deliveries(
    name: Annotated[str | None, typer.Argument(help="Only of this promotion.", metavar="[NAME]")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Every delivery, the newest first."""
    with connect() as client:
        found = list(client.pages("/v1/deliveries", **({"name": name} if name else {})))
    if output is Format.JSON:
        show_json(found)
    else:
        show_table(DELIVERY_COLUMNS, [delivery_row(one) for one in found])


@app.command()
def show(delivery: Delivery, output: OutputOption = Format.TABLE) -> None:
    """One delivery: its steps, its losses, and what lies where."""
    with connect() as client:
        found = client.get(f"/v1/deliveries/{delivery}")
    if output is Format.JSON:
        show_json(found)
    else:
        show_delivery(found)


@app.command()
def fetch(
    delivery: Delivery,
    artifact: Annotated[str, typer.Argument(help="adapter, merged, or the variant, such as q4_k_m.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Download what a delivery made into a new folder."""
    require_new(folder)
    with connect() as client:
        made = client.get(f"/v1/deliveries/{delivery}")
        names = [one["name"] for one in made["artifacts"]]
        if artifact not in names:
            known = f"it has {', '.join(names)}" if names else f"it is {made['state']}"
            raise NotFound(f"delivery {delivery} has no artifact {artifact[:40]!r}; {known}.")
        files = {file["name"]: file["sha256"] for file in made["artifacts"][names.index(artifact)]["files"]}
        with client.download(f"/v1/deliveries/{delivery}/artifacts/{artifact}") as chunks:
            unpack(chunks, files, folder)
    say(f"Written to {folder}: {', '.join(sorted(files))}.")


def deliveries_of(client: Client, promotion: Json) -> list[Json]:
    """Of one version of a promotion, the newest first."""
    return list(client.pages("/v1/deliveries", name=promotion["name"], version=promotion["version"]))


def delivery_row(found: Json) -> list[object]:
    """A delivery as a row of DELIVERY_COLUMNS."""
    what = found["quantize"] or ("merged" if found["merge"] else "adapter")
    losses = found["losses"]
    return [
        found["id"],
        found["promotion"],
        what,
        found["state"],
        None if losses is None else losses["loss"],
        f"{found['cost_usd']:.2f} USD",
        found["delivered_by"],
        found["created_at"][:19],
        found["message"] or None,
    ]


def show_delivery(found: Json) -> None:
    """A delivery with its steps and artifacts."""
    losses = found["losses"]
    said = [artifact for artifact in found["artifacts"] if artifact["generated"] is not None]
    show_record(
        {
            "delivery": found["id"],
            "promotion": f"{found['promotion']}, of study {found['study']}",
            "state": found["state"],
            "message": found["message"] or None,
            "adapter": None if losses is None else "reused" if losses["reused"] else "trained",
            "loss": None if losses is None else _beside(losses["loss"], losses["promoted_loss"]),
            "test loss": None if losses is None else _test_losses(losses),
            "took": f"{found['seconds']:.0f} device seconds, {found['cost_usd']:.2f} USD",
            "asked for": f"{found['created_at'][:19]} by {found['delivered_by']}",
            **{f"{artifact['name']} says": repr(artifact["generated"]) for artifact in said},
        }
    )
    show_table(_STEP_COLUMNS, [_step_row(step) for step in found["steps"]])
    show_table(_ARTIFACT_COLUMNS, [_artifact_row(artifact) for artifact in found["artifacts"]])


def _followed(client: Client, made: Json) -> Json:
    """Wait for the end, through restarts of the service, and say what happens."""
    said, path = "", f"/v1/deliveries/{made['id']}"
    while made["state"] not in ("completed", "failed"):
        if made["message"] != said:
            said = made["message"]
            say(f"{said} …")
        time.sleep(_POLL_SECONDS)
        made = patient(lambda: client.get(path))
    return made


def _beside(loss: float | None, promoted: float | None) -> str | None:
    if loss is None:
        return None
    return f"{loss:.6g}" if promoted is None else f"{loss:.6g}, promoted with {promoted:.6g}"


def _test_losses(losses: Json) -> str | None:
    """The promoted one is the confirmation's, with seeds of its own, so the two need not be equal."""
    loss, confirmed = losses["test_loss"], losses["promoted_test_loss"]
    if loss is None:
        return None
    return f"{loss:.6g}" if confirmed is None else f"{loss:.6g}; with the confirmation's seeds {confirmed:.6g}"


def _step_row(step: Json) -> list[object]:
    progress = step["progress"]
    now = f"{progress['phase']} at {progress['examples_seen']}" if "phase" in progress else None
    return [
        step["job"],
        step["kind"],
        step["state"],
        step["attempt"],
        step["worker"],
        f"{step['seconds']:.1f}",
        f"{step['cost_usd']:.2f}",
        step["message"] or now,
    ]


def _artifact_row(artifact: Json) -> list[object]:
    before, after = artifact["perplexity_before"], artifact["perplexity_after"]
    judged = None if after is None else f"{before:.4g} -> {after:.4g}"
    return [artifact["name"], megabytes(artifact["size_bytes"]), judged, artifact["sha256"], artifact["location"]]
