"""What a promotion pins is the trial that Optuna's tables tell of, in its document, its exports and its page."""

import html
import json
import re
from collections.abc import Iterator

from tests.consistency import files, trials
from tests.consistency.compared import promotion_compared
from tests.consistency.place import Place
from tests.consistency.shown import says


def promotion_disagrees(place: Place, study: str, promotion: str) -> list[str]:
    """Every sentence about the newest version of `promotion` that is not so."""
    return [f"{promotion}: {sentence}" for sentence in _disagrees(place, study, promotion)]


def _disagrees(place: Place, study: str, promotion: str) -> Iterator[str]:
    made = place.get(f"/v1/promotions/{promotion}/latest")
    best = place.get(f"/v1/studies/{study}")["best"]
    trial = trials.tables(place, study)[made["trial_number"]]
    values = trials.of_optuna([trial])[trial.number].parameters
    if made["trial_number"] != best["trial_number"]:
        yield f"it is trial {made['trial_number']}, the study's best is {best['trial_number']}"
    if made["parameters"] != dict(values):
        yield f"its parameters are {made['parameters']}, in the tables {values}"
    if made["losses"]["searched_loss"] != trial.values[0]:
        yield f"its loss is {made['losses']['searched_loss']}, in the tables {trial.values[0]}"
    for format in files.FORMATS:
        text = place.page(f"/v1/promotions/{promotion}/latest/export?format={format}")
        for name, value in files.parameters(format, text).items():
            if name in values and not says(json.dumps(value) if isinstance(value, bool) else value, values[name]):
                yield f"{name} is {value!r} in the export {format}, in the tables {values[name]!r}"
    shown = dict(re.findall(r"<dt>(\w+)</dt><dd><code>([^<]*)</code></dd>", place.page(f"/promotions/{promotion}/1")))
    for name, text in shown.items():
        if name in values and not says(html.unescape(text), values[name]):
            yield f"{name} is {text!r} on its page, in the tables {values[name]!r}"
    if not shown.keys() & values.keys():
        yield "its page shows no parameters"
    yield from promotion_compared(place, study, promotion)
