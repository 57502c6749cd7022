"""What must be so of any study that has ended, wherever its user looks: a list of questions, nothing as the answer."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tests.consistency import files, trials
from tests.consistency.compared import compared_is_told
from tests.consistency.place import Json, Place
from tests.consistency.shown import says
from tests.consistency.trials import NAMES, Seen, Trials
from trainer.spec import DataSpec, ModelSpec, Parameters, SnapshotManifest, TrainingSettings, TrialSpec

#: so many paused trials are trained to their end because they lead
_MOST_FINISHED = 3
#: why a study that ended by itself may have fewer trials than it was to have
_WHY_FEWER = re.compile(r"exhausted|stopped by the user|budget|are spent|are left|deadline|is expected to gain")
#: what would blame a user, who did nothing but what he was told he may
_BLAME = re.compile(
    r"chang(?:ed|es) |edited|is missing|are missing|does not exist|do not exist|not found|no such|invalid|is wrong"
    r"|refused|denied|forbidden|not allowed|your |another one|none then",
    re.IGNORECASE,
)


def disagreements(place: Place, name: str) -> list[str]:
    """Every sentence about study `name` that is not so, with where it stands. The study has ended."""
    study = place.get(f"/v1/studies/{name}")
    truth = trials.tables(place, name)
    checks: tuple[Callable[[Place, Json, Mapping[int, FrozenTrial]], Iterator[str]], ...] = (
        trials_agree, trained_is_told, best_agrees, exports_agree, confirmed_is_told, leader_is_finished, asked_is_done,
        confirming_is_done, compared_is_told, nobody_is_blamed,
    )  # fmt: skip
    return [f"{name}: {sentence}" for check in checks for sentence in check(place, study, truth)]


def trials_agree(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """Tables, notebook, API, command, console, dashboard: one state, one set of values, one curve a trial."""
    name, expected = study["name"], trials.of_optuna(truth.values())
    for number, one in expected.items():
        unsaid = [known for known in NAMES if known not in one.parameters]
        if one.losses and unsaid:
            yield f"Optuna's tables do not say {unsaid} of trial {number}"
    places: dict[str, Trials] = {
        "the notebook": trials.notebook(place, name),
        "the API": trials.api(place, name),
        "hpo trial list -o json": trials.command(place, name),
        "hpo trial list": trials.command_table(place, name),
        "the console": trials.console(place, name, expected),
    }
    if place.dashboard and study["dashboard"]:
        places |= {
            "the dashboard": trials.dashboard(place, study),
            "the dashboard's CSV": trials.dashboard_csv(place, study),
        }
    for where, found in places.items():
        if found.keys() != expected.keys():
            yield f"{where} has trials {sorted(found)}, the tables {sorted(expected)}"
        whole = where != "hpo trial list"
        for number in found.keys() & expected.keys():
            for sentence in _differences(found[number], expected[number], whole=whole):
                yield f"{where}, trial {number}: {sentence}"


def _differences(shown: Seen, expected: Seen, *, whole: bool) -> Iterator[str]:
    if shown.state != expected.state:
        yield f"state {shown.state}, in the tables {expected.state}"
    if whole and expected.losses and shown.parameters.keys() != expected.parameters.keys():
        yield f"parameters {sorted(shown.parameters)}, in the tables {sorted(expected.parameters)}"
    for name, value in shown.parameters.items():
        if name in expected.parameters and not says(value, expected.parameters[name]):
            yield f"{name} is {value!r}, in the tables {expected.parameters[name]!r}"
    if shown.losses is not None and expected.losses is not None:
        if shown.losses.keys() != expected.losses.keys():
            yield f"losses at {sorted(shown.losses)}, in the tables at {sorted(expected.losses)}"
        for rung, loss in shown.losses.items():
            known = expected.losses.get(rung, loss)
            finite = math.isfinite(known) if isinstance(known, float) else True
            if not (says(loss, known) if finite else loss is None or says(str(loss), known)):
                yield f"loss {loss!r} at {rung} examples, in the tables {known!r}"


def trained_is_told(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """What workers wrote into snapshots belongs to the trial that the tables tell of."""
    if not place.trains:
        return
    resolved = study["resolved"]
    for number, trial in truth.items():
        parameters = {name: value for name, value in {**trial.user_attrs, **trial.params}.items() if name in NAMES}
        for path in place.snapshots.glob(f"*/{trial._trial_id}/**/manifest.json"):
            manifest = SnapshotManifest.model_validate_json(path.read_bytes())
            told = TrialSpec(
                model=ModelSpec.model_validate(resolved["model"]),
                data=DataSpec.model_validate(resolved["data"]),
                parameters=Parameters.model_validate(parameters),
                training=TrainingSettings.model_validate(resolved["training"]),
            )
            if manifest.trial_digest != told.digest():
                yield f"a snapshot of trial {number} is of another trial than the tables tell: {parameters}"
            adapter = json.loads(path.with_name("adapter_config.json").read_text())
            doubled = 1 if parameters["init_lora_weights"] == "default" else 2
            for key, value in (
                ("r", parameters["lora_r"] * doubled),
                ("lora_dropout", parameters["lora_dropout"]),
                ("use_dora", parameters["use_dora"]),
                ("use_rslora", parameters["use_rslora"]),
            ):
                if adapter[key] != value:
                    yield f"{key} of trial {number} is {adapter[key]!r} in its adapter, {value!r} in the tables"


def best_agrees(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """Whoever names the best names the same, which is what one would use now."""
    name, best = study["name"], study["best"]
    expected = _best(study, truth)
    if best is None or expected is None:
        if best is not expected:
            yield f"best is {best and best['trial_number']}, by the tables {expected}"
        return
    number, loss, provisional = expected
    if (best["trial_number"], best["provisional"]) != (number, provisional) or not _close(best["loss"], loss):
        yield (
            f"best is trial {best['trial_number']} at {best['loss']}, provisional {best['provisional']}; by the tables "
            f"it is {expected}"
        )
    for known, value in trials.of_optuna([truth[number]])[number].parameters.items():
        if not says(best["parameters"].get(known), value):
            yield f"{known} of the best is {best['parameters'].get(known)!r}, in the tables {value!r}"
    report = place.page(f"/v1/studies/{name}/report?format=markdown")
    named = {
        "hpo study show": re.search(r"^best +trial (\d+)", place.command("study", "show", name), re.MULTILINE),
        "the console": re.search(r">trial (\d+)</a> <span class=\"chip best\">", place.page(f"/studies/{name}")),
        "the report": re.search(r"\| parameter \| trial (\d+) \|", report),
    }
    for where, found in named.items():
        if found is None or int(found[1]) != number:
            yield f"{where} names {found and found.group()!r} as the best, the API trial {number}"


def _close(shown: float, value: float) -> bool:
    return math.isclose(shown, value, rel_tol=1e-12)


def _best(study: Json, truth: Mapping[int, FrozenTrial]) -> tuple[int, float, bool] | None:
    """Number, loss and whether it is provisional, worked out from Optuna's tables."""
    raced = [one for one in (study["confirmation"] or {"candidates": []})["candidates"] if _means(one)]
    if raced:
        most = max(len(_means(one)) for one in raced)
        finalists = [one for one in raced if len(_means(one)) == most]
        winner = min(finalists, key=lambda one: (sum(_means(one)) / len(_means(one)), one["trial_number"]))
        return winner["trial_number"], sum(_means(winner)) / len(_means(winner)), False
    complete = [
        trial
        for trial in truth.values()
        if trial.state is TrialState.COMPLETE and not _baseline(trial) and math.isfinite(trial.values[0])
    ]
    if complete:
        winner_ = min(complete, key=lambda trial: (trial.values[0], trial.number))
        return winner_.number, winner_.values[0], False
    alive = [trial for trial in truth.values() if trial.state is not TrialState.FAIL and _finite(trial)]
    for first in alive:
        if all(_ahead(first, other, ties=True) for other in alive if other is not first):
            return first.number, _finite(first)[max(_finite(first))], True
    return None


def _means(candidate: Json) -> list[float]:
    return [run["loss"] for run in candidate["runs"] if run["state"] == "complete"]


def _baseline(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("baseline"))


def _finite(trial: FrozenTrial) -> dict[int, float]:
    losses = trial.intermediate_values
    return losses if losses and all(map(math.isfinite, losses.values())) else {}


def _ahead(one: FrozenTrial, other: FrozenTrial, *, ties: bool) -> bool:
    """At the highest rung that both have; where one was not evaluated at the other's last, whoever is lower earlier.

    With `ties` the lower number is ahead at the same loss.
    """
    mine, theirs = _finite(one), _finite(other)
    last = min(max(mine), max(theirs))
    if last not in mine or last not in theirs:
        early, further = (mine, theirs) if last in mine else (theirs, mine)
        if early[last] < further[min(rung for rung in further if rung > last)]:
            return early is mine
        last = max(mine.keys() & theirs.keys(), default=0)
    if last not in mine or last not in theirs:
        return False
    return mine[last] < theirs[last] or (ties and mine[last] == theirs[last] and one.number < other.number)


def exports_agree(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """Every file says the best trial's values under its own program's keys, and where they come from."""
    best = study["best"]
    if best is None:
        return
    values = trials.of_optuna([truth[best["trial_number"]]])[best["trial_number"]].parameters
    for format in files.FORMATS:
        text = place.page(f"/v1/studies/{study['name']}/best/export?format={format}")
        for name, value in files.parameters(format, text).items():
            if name in values and not _same(value, values[name]):
                yield f"{name} is {value!r} in the export {format}, in the tables {values[name]!r}"
        if format == "json":
            origin = json.loads(text)["provenance"]
            if origin["trial"] != best["trial_number"]:
                yield f"the export says trial {origin['trial']}, the API trial {best['trial_number']}"


def _same(written: Any, value: Any) -> bool:
    """Equal to the last digit, whatever type a file gives to a whole number."""
    if isinstance(value, bool) or isinstance(written, bool) or isinstance(value, str):
        return str(written).lower() == str(value).lower()
    return float(written) == float(value)


def confirmed_is_told(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """The confirmation that the API tells is that of Optuna's study `NAME/confirm`."""
    found = study["confirmation"]
    if found is None:
        return
    runs = trials.tables(place, f"{study['name']}/confirm")
    for candidate in found["candidates"]:
        for run in candidate["runs"]:
            trial = runs[run["trial_number"]]
            value = trial.values[0] if trial.state is TrialState.COMPLETE else None
            if run["loss"] != value:
                yield f"a run of candidate {candidate['trial_number']} ended at {value}, the API says {run['loss']}"
            searched = trials.of_optuna([truth[candidate["trial_number"]]])[candidate["trial_number"]].parameters
            trained = trials.of_optuna([trial])[trial.number].parameters
            if any(trained[name] != value for name, value in searched.items()):
                yield f"run {run['trial_number']} trained other values than trial {candidate['trial_number']}"
    if place.dashboard and found["dashboard"]:
        shown = trials.dashboard(place, found)
        for number, told in trials.of_optuna(runs.values()).items():
            for sentence in _differences(shown[number], told, whole=True):
                yield f"the dashboard, run {number} of the confirmation: {sentence}"


def leader_is_finished(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """A study that ended by itself leaves no trial ahead of the best complete one, or has finished three for that."""
    if study["state"] != "completed":
        return
    with place.client() as client:
        decisions = list(client.pages(f"/v1/studies/{study['name']}/decisions"))
    if len({one["trial_number"] for one in decisions if one["rule"] == "finish"}) >= _MOST_FINISHED:
        return
    if "lacked" in study["message"]:
        if "are decided" in study["message"]:
            yield f"it ended by itself and says: {study['message']}"
        return
    complete = [trial for trial in truth.values() if trial.state is TrialState.COMPLETE and not _baseline(trial)]
    best = min(complete, key=lambda trial: (trial.values[0], trial.number), default=None)
    if best is None or len(study["resolved"]["search"]["objectives"]) > 1:  # their weights are drawn anew each time
        return
    left = [trial for trial in truth.values() if trial.state is TrialState.PRUNED and not _baseline(trial)]
    for trial in left:
        if _finite(trial) and _ahead(trial, best, ties=False):
            yield f"trial {trial.number} was ahead of the best, trial {best.number}, and is not finished"


def asked_is_done(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """Trials and enqueued points that were asked for are there, or the study says why not."""
    if study["state"] != "completed":
        if not study["message"] and study["state"] == "failed":
            yield "it failed and does not say why"
        return
    wanted = study["resolved"]["budget"]["max_trials"]
    if len(truth) < wanted and not _WHY_FEWER.search(study["message"]):
        yield f"{len(truth)} of {wanted} trials, and the message is {study['message']!r}"
    counted = re.search(r"all (\d+) points of it were tried", study["message"])
    points = {json.dumps(trial.params, sort_keys=True) for trial in truth.values()}
    if counted is not None and len(points) < int(counted[1]):
        yield f"{len(points)} points were tried, and the message is {study['message']!r}"
    failed = [number for number, trial in truth.items() if trial.state is TrialState.FAIL]
    if failed and not place.disturbed:
        yield f"trials {failed} failed"
    for point in study["spec"].get("enqueue") or []:
        if not any(_holds(trial, point) for trial in truth.values()):
            yield f"the enqueued point {point} is no trial"


def confirming_is_done(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """A confirmation that was asked for ran, test rows included, or the study says why not."""
    asked, found = study["resolved"].get("confirm"), study["confirmation"]
    if study["state"] != "completed":
        return
    searched = [trial for trial in truth.values() if not _baseline(trial) and _finite(trial)]
    if (asked is not None and bool(searched)) != (found is not None):
        yield f"confirm is {asked}, the confirmation {found}"
    if found is not None and found["state"] == "completed":
        runs = [run for candidate in found["candidates"] for run in candidate["runs"] if run["state"] == "complete"]
        if not runs:
            yield "the confirmation is completed without a run that reached its end"
        if study["resolved"]["data"]["test"] and any(run["test_loss"] is None for run in runs):
            yield "a run of the confirmation has no loss on the test rows"


def _holds(trial: FrozenTrial, point: Mapping[str, Any]) -> bool:
    values = {**trial.user_attrs, **trial.params}
    return all(values.get(name) == value for name, value in point.items())


def nobody_is_blamed(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """Of a study to which only workers and the service itself did something, no message accuses anyone."""
    if place.disturbed:
        return
    told = [("the study", study["message"])]
    told += [(f"trial {number}", str(trial.user_attrs.get("message") or "")) for number, trial in truth.items()]
    with place.client() as client, client.events(study["name"], 0) as events:
        for event in events:
            told.append((f"event {event.kind}", str(event.data.get("message") or "")))
            if event.id >= study["last_event"]:
                break
    for where, message in told:
        if _BLAME.search(message):
            yield f"{where} says {message!r}"
