"""The best against the baseline: one comparison, worked out from Optuna's tables, and the same wherever it is told.

A difference is of the seeds that both have, and the losses that stand beside it are the means over those.
"""

import html
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from hpo_service.cli.export_file import Delivered
from hpo_service.cli.pull_request_body import body
from tests.consistency import trials
from tests.consistency.place import Json, Place

_GAIN = re.compile(r"\d+\.\d% (?:better|worse) than the baseline(?: \([^)]*\))?")
_VERDICT = re.compile(
    r"(\d+\.\d+)( ± \d+\.\d+)? (?:loss|lower|higher) ((?:over the \d+ new|with the search's)[^.]*?) examples"
)
_SENTENCE = re.compile(
    r"your current configuration (?:by|cannot be told apart) \(?([\d.]+) ± ([\d.]+) \w+ over (.*?) that"
)
_NUMBER = r"[+-]?\d+\.\d{4}"
Runs = Mapping[int, Mapping[int, float]]
"""Losses of complete runs by candidate and seed."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is to be said of a trial against the baseline; `seeds` 0: by the search."""

    loss: float
    baseline_loss: float
    examples: int
    baseline_examples: int
    seeds: int

    @property
    def difference(self) -> float:
        """The trial's loss minus the baseline's."""
        return self.loss - self.baseline_loss

    @property
    def reached(self) -> str:
        """After how many examples."""
        if self.examples == self.baseline_examples:
            return f"after {self.examples}"
        return f"each at its own end: {self.examples} and {self.baseline_examples}"

    @property
    def over(self) -> str:
        """Which seeds."""
        if not self.seeds:
            return "with the search's one seed"
        return f"over the {self.seeds} new seed{'' if self.seeds == 1 else 's'} that both have"

    @property
    def verdict(self) -> str:
        """Between the amount and `examples`."""
        return f"{self.over}{' ' if self.examples == self.baseline_examples else ', '}{self.reached}"

    @property
    def gain(self) -> tuple[str, str]:
        """In a few words, and in full."""
        relative = -self.difference / self.baseline_loss
        short = f"{abs(relative):.1%} {'better' if relative >= 0 else 'worse'} than the baseline"
        seeds = f", {self.over}" if self.seeds else ""
        between = " " if self.examples == self.baseline_examples else ", "
        losses = f"{self.loss:.4f} against {self.baseline_loss:.4f}"
        return short, f"{short} ({losses}{between}{self.reached} examples{seeds})"


def compared_is_told(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Iterator[str]:
    """Document, note, command, console, report and export tell the one comparison, with its seeds and examples."""
    best, name = study["best"], study["name"]
    told = None if best is None else expected(place, study, truth)
    if told is None:
        if best is not None and best["improvement"] and best["improvement"]["baseline_trial"] != best["trial_number"]:
            yield f"the API compares the best: {best['improvement']}, the tables have nothing to compare"
        return
    yield from _document("the API", best["improvement"], told)
    origin = json.loads(place.page(f"/v1/studies/{name}/best/export?format=json"))["provenance"]
    if (origin["compared_loss"], origin["baseline_loss"], origin["compared_seeds"]) != (
        best["improvement"]["loss"], best["improvement"]["baseline_loss"], told.seeds
    ):  # fmt: skip
        yield f"the export compares {origin}, the API {best['improvement']}"
    report = place.page(f"/v1/studies/{name}/report?format=markdown")
    texts = {
        "hpo study show": _line(place.command("study", "show", name)),
        "the console": _text(place.page(f"/studies/{name}")),
        "the report": _line(report),
    }
    if place.dashboard and study["dashboard"]:
        shown = place.get(f"/api/studies/{study['dashboard'].rpartition('/')[2]}")
        texts["the dashboard's note"] = _line(shown["note"]["body"])
    for where in ("hpo study show", "the console", "the dashboard's note"):
        if where in texts and told.gain[1] not in texts[where]:
            yield f"{where} does not say {told.gain[1]!r}"
    for where, text in texts.items():
        yield from _gains(where, text, told)
    width = _half_width(study)
    for where in ("the console", "the report"):
        yield from _verdicts(where, texts[where], told, width)
    yield from _listed(place, name, told)
    yield from _table(report, told)
    yield from _confirmation(place, study, report)


def promotion_compared(place: Place, study: str, promotion: str) -> Iterator[str]:
    """A promotion, its page, the list, every export's comment and the pull request tell the same."""
    document = place.get(f"/v1/studies/{study}")
    told = expected(place, document, trials.tables(place, study))
    made = place.get(f"/v1/promotions/{promotion}/latest")
    if told is None or made["comparison"] is None:
        return
    yield from _document("the promotion", made["comparison"], told)
    width, label = _half_width(document), f"{promotion}@{made['version']}"
    page = _text(place.page(f"/promotions/{promotion}/{made['version']}"))
    texts = {
        "the promotion": made["verdict"],
        "its page": page,
        "the list of promotions": _text(place.page("/promotions")).partition(label)[2].partition("@")[0],
        "hpo promotion show": _line(place.command("promotion", "show", label)),
        "the pull request": body(made, Delivered(path=Path("file")), place.url),
    }
    for format in ("yaml", "env", "axolotl"):
        texts[f"the export {format}"] = place.page(f"/v1/promotions/{promotion}/latest/export?format={format}")
    for where, text in texts.items():
        yield from _verdicts(where, text, told, width)
    for where, words in _promised(made, told):
        if words not in texts[where]:
            yield f"{where} does not say {words!r}"


def _promised(made: Json, told: Told) -> Iterator[tuple[str, str]]:
    """Where a promotion says what beside its verdict."""
    cells = {
        "Beside the baseline": f"{told.loss:.4f} {told.over}, {told.reached} examples",
        "Baseline": f"{told.baseline_loss:.4f}",
        "Difference": f"{told.difference:+.4f}",
    }
    for title, words in cells.items():
        yield "its page", f" {title} {words}"
    yield "the pull request", (f"{told.difference:+.4f} loss ({told.loss:.4f} instead of {told.baseline_loss:.4f})")
    yield "the pull request", f", {told.over}, {told.reached} examples |"
    losses, bill = made["losses"], made["bill"]
    if losses["confirmed_loss"] is not None:
        seeds = f"mean over {losses['confirmed_seeds']} new seed"
        yield "its page", f" Confirmed {losses['confirmed_loss']:.4f} {seeds}"
        for where in ("hpo promotion show", "the pull request"):
            yield where, f"{losses['confirmed_loss']:.4f} ({seeds}"
    took = f"{bill['study_seconds'] + bill['confirmation_seconds']:.0f} device seconds"
    for where in ("its page", "hpo promotion show", "the pull request"):
        yield where, took


def expected(place: Place, study: Json, truth: Mapping[int, FrozenTrial]) -> Told | None:
    """From the tables alone; None where there is nothing to compare."""
    best = study["best"]
    baseline = next((trial for trial in truth.values() if trial.user_attrs.get("baseline")), None)
    if best is None or baseline is None or baseline.number == best["trial_number"]:
        return None
    winner = truth[best["trial_number"]]
    if best["confirmed"] is not None:
        runs = _runs(place, study)
        ours, theirs = runs.get(winner.number, {}), runs.get(baseline.number, {})
        shared = sorted(ours.keys() & theirs.keys())
        if not shared:
            return None
        loss, other = (math.fsum(each[seed] for seed in shared) / len(shared) for each in (ours, theirs))
        ends = [int(trial.user_attrs["total_examples"]) for trial in (winner, baseline)]
        return Told(loss=loss, baseline_loss=other, examples=ends[0], baseline_examples=ends[1], seeds=len(shared))
    mine, others = ({rung: loss for rung, loss in trial.intermediate_values.items() if math.isfinite(loss)}
                    for trial in (winner, baseline))  # fmt: skip
    rung = max(mine.keys() & others.keys(), default=0)
    if not rung:
        return None
    return Told(loss=mine[rung], baseline_loss=others[rung], examples=rung, baseline_examples=rung, seeds=0)


def _runs(place: Place, study: Json) -> Runs:
    found: dict[int, dict[int, float]] = {}
    for run in trials.tables(place, f"{study['name']}/confirm").values():
        if run.state is TrialState.COMPLETE:
            found.setdefault(run.user_attrs["candidate"], {})[run.user_attrs["seed"]] = run.values[0]
    return found


def _document(where: str, found: Json, told: Told) -> Iterator[str]:
    for name in ("loss", "baseline_loss", "difference"):
        if not math.isclose(found[name], getattr(told, name), rel_tol=1e-9, abs_tol=1e-12):
            yield f"{where} compares {name} {found[name]}, by the tables {getattr(told, name)}"
    for name in ("examples", "baseline_examples", "seeds"):
        if found[name] != getattr(told, name):
            yield f"{where} compares with {name} {found[name]}, by the tables {getattr(told, name)}"


def _gains(where: str, text: str, told: Told) -> Iterator[str]:
    for found in _GAIN.findall(text):
        if found not in told.gain:
            yield f"{where} says {found!r}, by the tables {told.gain[1]!r}"


def _verdicts(where: str, text: str, told: Told, width: float | None) -> Iterator[str]:
    found = _VERDICT.findall(text)
    if not found:
        yield f"{where} does not say how the trial compares with the baseline"
    for amount, interval, how in found:
        if (amount, how) != (f"{abs(told.difference):.4f}", told.verdict):
            yield f"{where} says {amount} {how!r}, by the tables {abs(told.difference):.4f} {told.verdict!r}"
        if width is not None and interval != f" ± {width:.4f}":
            yield f"{where} says{interval}, the confirmation ± {width:.4f}"


def _half_width(study: Json) -> float | None:
    """The interval of the best's difference to the baseline; None where only the search compares them."""
    best, found = study["best"], study["confirmation"]
    if best["confirmed"] is None or found is None:
        return None
    pair = {best["trial_number"], best["improvement"]["baseline_trial"]}
    return next(
        (one["half_width"] for one in found["differences"] if {one["trial_number"], one["other_trial_number"]} == pair),
        None,
    )


def _listed(place: Place, name: str, told: Told) -> Iterator[str]:
    """The lists have room for the share alone."""
    relative = -told.difference / told.baseline_loss
    for line in place.command("study", "list").splitlines():
        shown = re.search(r"[+-]\d+\.\d%", line)
        if line.split()[:1] == [name] and shown is not None and shown.group() != f"{-relative:+.1%}":
            yield f"hpo study list says {shown.group()}, by the tables {-relative:+.1%}"
    for row in place.page("/").split("<tr")[1:]:
        if f'href="/studies/{name}"' in row:
            yield from _gains("the console's first page", _text(f"<tr{row}"), told)


def _table(report: str, told: Told) -> Iterator[str]:
    for title, value in (("winner", told.loss), ("baseline", told.baseline_loss), ("difference", told.difference)):
        shown = re.search(rf"^\| {title} \|[^|]*\| ({_NUMBER})", report, re.MULTILINE)
        if shown is None or float(shown[1]) != round(value, 4):
            yield f"the report's {title} is {shown and shown[1]}, by the tables {value}"
    heading = f"| loss {told.reached} examples, {told.over} |"
    if heading not in report:
        yield f"the report's table of both is not headed {heading!r}"


def _confirmation(place: Place, study: Json, report: str) -> Iterator[str]:
    """Differences of all candidates are means over the seeds that two of them have, with one interval each."""
    found = study["confirmation"]
    if found is None:
        return
    runs, baseline = _runs(place, study), {one["trial_number"] for one in found["candidates"] if one["baseline"]}
    for gap in found["differences"]:
        ours, theirs = (runs.get(gap[name], {}) for name in ("trial_number", "other_trial_number"))
        shared = sorted(ours.keys() & theirs.keys())
        mean = math.fsum(ours[seed] - theirs[seed] for seed in shared) / len(shared) if shared else math.nan
        if gap["seeds"] != len(shared) or not math.isclose(gap["mean"], mean, rel_tol=1e-9, abs_tol=1e-12):
            yield f"the API tells the difference {gap}, by the runs it is {mean} over {len(shared)} seeds"
        seeds = f"{gap['seeds']} seed{'' if gap['seeds'] == 1 else 's'}"
        cell = f"{gap['mean']:+.4f} ± {gap['half_width']:.4f} ({seeds})"
        if gap["other_trial_number"] in baseline and cell not in report:
            yield f"the report does not say {cell!r} of trial {gap['trial_number']}"
    intervals = {f"{one['half_width']:.4f}" for one in found["differences"]}
    for shown in re.findall(r"± (\d+\.\d{4})", _section(report)):
        if shown not in intervals:
            yield f"the report says ± {shown} of its confirmation, the API knows {sorted(intervals)}"
    for _, width, _ in _SENTENCE.findall(found["sentence"]):
        if width not in intervals:
            yield f"the confirmation's sentence says ± {width}, its differences {sorted(intervals)}"


def _section(report: str) -> str:
    """Of a report, what is said of its confirmation."""
    return report.partition("\nThe confirmation is")[2].partition("\n## ")[0]


def _text(page: str) -> str:
    return _line(html.unescape(re.sub(r"<[^>]+>", " ", page)))


def _line(text: str) -> str:
    return " ".join(text.split())
