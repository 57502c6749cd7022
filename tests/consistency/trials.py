"""What each place says about a study's trials, as its user reads it."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo_service.notebook import load_study
from tests.consistency.place import Json, Place
from trainer.spec import Parameters

NAMES = tuple(Parameters.model_fields)
_PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A trial in one place. Values are as they are shown, text where the place shows text.

    `losses` by rung in examples; None where the place does not show them.
    """

    state: str
    parameters: Mapping[str, Any]
    losses: Mapping[int, Any] | None = None


Trials = Mapping[int, Seen]


def tables(place: Place, optuna_name: str) -> dict[int, FrozenTrial]:
    """Optuna's own view of its tables."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=optuna_name, storage=place.tables)
    return {trial.number: trial for trial in study.trials}


def of_optuna(trials: Iterable[FrozenTrial]) -> dict[int, Seen]:
    """Trials of Optuna's as they would be read from a notebook."""
    return {
        trial.number: Seen(
            state=_paused(trial.state.name, trial.user_attrs.get("hpo_state")),
            parameters=_known({**trial.user_attrs, **trial.params}),
            losses=dict(trial.intermediate_values),
        )
        for trial in trials
    }


def notebook(place: Place, name: str) -> dict[int, Seen]:
    """The copy that README's notebook lines make."""
    return of_optuna(load_study(name, url=place.url, key=place.key).trials)


def api(place: Place, name: str) -> dict[int, Seen]:
    """`GET /v1/studies/NAME/trials`."""
    with place.client() as client:
        return _documents(client.pages(f"/v1/studies/{name}/trials", page_size=_PAGE))


def command(place: Place, name: str) -> dict[int, Seen]:
    """`hpo trial list NAME -o json`."""
    return _documents(json.loads(place.command("trial", "list", name, "-o", "json")))


def command_table(place: Place, name: str) -> dict[int, Seen]:
    """`hpo trial list NAME`: what differs between trials, as text."""
    lines = place.command("trial", "list", name).splitlines()
    headings = re.split(r"\s{2,}", lines[0].strip())
    starts = [re.search(rf"(?:^|\s){re.escape(heading)}(?:\s|$)", lines[0]) for heading in headings]
    places = [found.end() - len(heading) - (1 if found.group().endswith(" ") else 0)
              for found, heading in zip(starts, headings, strict=True) if found]  # fmt: skip
    found = {}
    for line in lines[1:]:
        cells = [line[start:end].strip() for start, end in zip(places, [*places[1:], None], strict=True)]
        row = dict(zip(headings, cells, strict=True))
        shown = {name: value for name, value in row.items() if name in NAMES and value not in ("", "-")}
        found[int(row["trial"])] = Seen(state=_STATES[row["state"]], parameters=shown)
    return found


def dashboard(place: Place, study: Json) -> dict[int, Seen]:
    """The JSON that optuna-dashboard's pages are drawn from."""
    shown = place.get(f"/api/studies/{study['dashboard'].rpartition('/')[2]}")
    found = {}
    for trial in shown["trials"]:
        attributes = {one["key"]: one["value"] for one in trial["user_attrs"]}
        parameters = {one["name"]: one["param_external_value"] for one in trial["params"]}
        assert not attributes.keys() & parameters.keys()
        losses = {one["step"]: one["value"] for one in trial["intermediate_values"]}
        found[trial["number"]] = Seen(
            state=_paused(trial["state"].upper(), attributes.get("hpo_state")),
            parameters=_known({**attributes, **parameters}),
            losses={step: float(loss) for step, loss in losses.items()},
        )
    return found


def dashboard_csv(place: Place, study: Json) -> dict[int, Seen]:
    """The dashboard's download."""
    text = place.page(f"/csv/{study['dashboard'].rpartition('/')[2]}")
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        values = {re.sub(r"^(Param|UserAttribute) ", "", name): value for name, value in row.items() if value != ""}
        state = _paused(row["State"], values.get("hpo_state"))
        found[int(row["Number"])] = Seen(state=state, parameters=_known(values))
    return found


def console(place: Place, name: str, numbers: Iterable[int]) -> dict[int, Seen]:
    """The page of each trial."""
    return {number: _page(place.page(f"/studies/{name}/trials/{number}")) for number in numbers}


def _page(html: str) -> Seen:
    chips = re.findall(r'<span class="chip [^"]*">([^<]*)</span>', html)
    shown = dict(re.findall(r"<dt>(\w+)</dt><dd><code>([^<]*)</code></dd>", html))
    cells = re.findall(r'data-column="(Rung|Evaluation loss)"><div>([^<]*)</div>', html)
    values = [value.replace(",", "") for _, value in cells]
    losses = {int(rung): loss for rung, loss in zip(values[::2], values[1::2], strict=True)}
    return Seen(state=_STATES[chips[0]], parameters=_known(shown), losses=losses)


#: as console and command say it -> as Optuna does; `paused` is ours
_STATES = {
    "waiting": "WAITING", "running": "RUNNING", "paused": "PAUSED", "complete": "COMPLETE", "pruned": "PRUNED",
    "failed": "FAIL",
}  # fmt: skip


def _documents(items: Iterable[Json]) -> dict[int, Seen]:
    return {
        item["number"]: Seen(
            state="PAUSED" if item["paused"] else item["state"],
            parameters=_known(item["parameters"]),
            losses={rung["examples"]: rung["loss"] for rung in item["losses"]},
        )
        for item in items
    }


def _paused(state: str, ours: object) -> str:
    return "PAUSED" if state == "RUNNING" and ours == "paused" else state


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in NAMES if name in values}
