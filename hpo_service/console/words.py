"""Names, numbers and places as the console writes them."""

from urllib.parse import quote

from hpo_service.console.frame import meter, stacked
from hpo_service.formatting.html import Markup, join, tag
from hpo_service.services.trials.schemas import TrialSummary
from hpo_service.spec.confirmation import CONFIRMATION_SUFFIX
from hpo_service.storage.queries.overview import OpenSlice

_GIBIBYTE = 2**30
_STANDINGS = {"FAIL": "failed"}


def study_address(name: str) -> str:
    """The page of a study; of a confirmation that of the study which it confirms."""
    return f"/studies/{quote(name.removesuffix(CONFIRMATION_SUFFIX), safe='')}"


def trial_address(study: str, number: int) -> str:
    """The page of a trial; of a confirmation's run that of the study which it confirms."""
    if study.endswith(CONFIRMATION_SUFFIX):
        return study_address(study)
    return f"{study_address(study)}/trials/{number}"


def study_link(name: str) -> Markup:
    """A study's name."""
    return tag("a", name, href=study_address(name), class_="study")


def trial_link(study: str, number: int) -> Markup:
    """A trial's number."""
    return tag("a", f"trial {number}", href=trial_address(study, number))


def standing(trial: TrialSummary) -> str:
    """A trial's state in our words."""
    return "paused" if trial.paused else _STANDINGS.get(trial.state, trial.state.lower())


def gibibytes(count: float) -> str:
    """Memory."""
    return f"{count / _GIBIBYTE:.3g} GiB"


def speed(tokens_per_second: float) -> str:
    """Tokens of all devices of a trial together."""
    return f"{tokens_per_second:,.0f} tok/s" if tokens_per_second >= 10 else f"{tokens_per_second:.1f} tok/s"


def percent(share: float | None) -> str | None:
    """None stays unknown."""
    return None if share is None else f"{share:.0%}"


def progress(slice: OpenSlice) -> Markup | str:
    """How far a running slice is on its way to its rung."""
    if slice.state == "waiting":
        return f"to {slice.until_examples:,} examples"
    seen = slice.progress.get("examples_seen")
    if seen is None:
        return stacked("starting", f"to {slice.until_examples:,} examples")
    words = f"{seen:,} of {slice.until_examples:,} examples"
    if seen > slice.until_examples:  # the step that reached the rung went past it
        words = f"{seen:,} examples, past rung {slice.until_examples:,}"
    phase = str(slice.progress.get("phase", ""))
    return join(stacked(words, phase), meter(seen / slice.until_examples, words))
