"""What the API answers about the confirmation of a study."""

from typing import Literal

from hpo_service.core.study_rules import StudyState
from hpo_service.services.common.schemas import Document, SpentDocument


class ConfirmedDocument(Document):
    """What the best trial reached with new seeds, as far as all candidates that are left have them."""

    mean: float
    spread: float | None
    """Standard deviation between seeds; null with one seed."""
    seeds: int
    test_loss: float | None
    """Mean on the test rows, over all of its runs; null without test rows."""
    shared_seeds: int
    """Seeds that the baseline has too, over which they are compared."""
    difference: float | None
    """Its loss minus the baseline's, over the seeds that both have."""
    half_width: float | None
    """The interval of the difference is that far to both sides; see there."""


class RunDocument(Document):
    """One run: a candidate trained from its start to its end with a new seed."""

    trial_number: int
    """In the confirmation's own trials."""
    seed: int
    state: Literal["running", "complete", "failed", "stopped"]
    """stopped: the confirmation ended before the run did."""
    loss: float | None
    test_loss: float | None


class CandidateDocument(Document):
    """One candidate: a trial of the search, or the baseline."""

    trial_number: int
    baseline: bool
    searched_loss: float | None
    """What the search saw, in which luck has a part; null of a baseline that it could not measure."""
    searched_examples: int
    seeds: int
    """Complete runs."""
    mean: float | None
    spread: float | None
    test_loss: float | None
    out: str | None
    """Why it left the race; null while it is in it."""
    runs: list[RunDocument]


class DifferenceDocument(Document):
    """The loss of one candidate minus that of another, over the seeds that both have."""

    trial_number: int
    other_trial_number: int
    seeds: int
    mean: float
    half_width: float
    """The interval is `mean` plus or minus this: so wide that all comparisons of one candidate, with every other one
    and after every seed, hold at once with 95 %."""
    separated: bool
    """The interval leaves no doubt which of the two is lower."""


class ConfirmationDocument(Document):
    """The best trials and the baseline, trained again with new seeds. Its bill is apart from the search's."""

    state: StudyState
    message: str
    """How the race ended, or why it could not."""
    sentence: str
    """What it has found, for people."""
    runs: int
    """Runs that have ended."""
    most_runs: int
    """If no candidate drops out."""
    max_examples: int
    """What all runs together may train on."""
    spent: SpentDocument
    candidates: list[CandidateDocument]
    """Lowest mean first."""
    differences: list[DifferenceDocument]
    dashboard: str | None
    """Path of its page in optuna-dashboard."""
