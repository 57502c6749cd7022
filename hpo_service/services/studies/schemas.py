"""What the API answers of studies, typed."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from hpo_service.core.study_rules import StudyState
from hpo_service.services.common.schemas import Document as Document
from hpo_service.services.common.schemas import SpentDocument as SpentDocument
from hpo_service.services.common.schemas import UsageDocument as UsageDocument
from hpo_service.services.confirmations.schemas import ConfirmationDocument, ConfirmedDocument
from hpo_service.services.studies.forecasts import ForecastDocument

Item = TypeVar("Item")


class Page(Document, Generic[Item]):
    """Part of a collection."""

    items: list[Item]
    next_page_token: str | None = None
    """Send it as `page_token` for the next part; null at the end."""


class TrialCounts(Document):
    """Trials by where they stand; `paused` ones are RUNNING in Optuna's tables."""

    waiting: int = 0
    running: int = 0
    paused: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0


class SavingsDocument(Document):
    """Examples that pruned and paused trials did not see, and their share of all trials trained to their end."""

    examples: int
    share: float


class ImprovementDocument(Document):
    """The best trial against the baseline.

    In the search both losses are after the same number of examples, the most after which both have one. Confirmed, they
    are means over the new seeds that both have, each at its own end.
    """

    baseline_trial: int
    examples: int
    """The best trial's loss is after so many."""
    baseline_examples: int
    """The baseline's loss is after so many."""
    baseline_loss: float
    loss: float
    difference: float
    """`loss` minus `baseline_loss`: negative is better."""
    relative: float
    """The same as a share of the baseline's loss: positive where the best trial is better."""
    seeds: int
    """New seeds that both have; 0: the search's one."""


class BestDocument(Document):
    """The best trial so far."""

    trial_number: int
    loss: float
    examples: int
    provisional: bool
    """No searched trial has reached its end yet; this one is the leader."""
    parameters: dict[str, Any]
    improvement: ImprovementDocument | None
    confirmed: ConfirmedDocument | None = None
    """With it, `loss` is the mean over new seeds; else what the search saw, in which luck has a part."""


class LeadDocument(Document):
    """The leader and the best trial after the same number of examples, the highest at which both have a loss."""

    examples: int
    loss: float
    best_loss: float
    best_examples: int
    """As `examples`, or more: the best trial was not evaluated there, and its loss was higher even after so many."""
    parts: int = 0
    """The evaluation rows are looked at in so many fixed parts; 0 where the losses of parts are not known."""
    parts_ahead: int = 0
    """On so many of them the leader has the lower mean loss; half of them would be no lead at all."""


class LeaderDocument(Document):
    """The trial that is ahead of every other at the highest rung at which both have a loss."""

    trial_number: int
    examples: int
    """Its highest rung so far, which `loss` is from."""
    loss: float
    baseline: bool
    complete: bool
    """It was trained to its end."""
    left_examples: int
    """What it lacks to its end."""
    ahead_of_best: LeadDocument | None
    """null if it is the best trial itself."""


class ReserveDocument(Document):
    """What a study with a cap keeps back until the trial that leads is trained to its end."""

    trial_number: int | None
    """null as long as no searched trial leads: then it is what a whole trial takes."""
    examples: int
    gpu_hours: float | None
    """At the study's pace so far; null before the first slice."""
    usd: float | None


class EdgeDocument(Document):
    """The best trials all have a parameter at one end of its range: better values may lie beyond."""

    parameter: str
    side: Literal["lower", "upper"]
    best: float
    """The value of the best trial."""
    low: float
    high: float
    """The range as it is."""
    trials: int
    """How many trials, the best ones, lie there; chance alone would rarely put so many there."""
    message: str
    command: str
    """What widens the range: of the running study, or in a clone of one that has ended."""


class PurchaseDocument(Document):
    """So much more compute, and by how much it is expected to lower the best loss."""

    gpu_hours: float
    usd: float | None
    """null where no price is known."""
    expected_improvement: float


class OutlookDocument(Document):
    """What more compute would be expected to buy. An estimate from the latest decision by expected improvement.

    That decision expects an improvement e for c full trials of h GPU-hours; the rate e / (c h) is taken to fall like
    1 / (GPU-hours spent), so B more after S spent bring e / (c h) * S * ln(1 + B / S).
    """

    decision: int
    """Number of that decision."""
    best_loss: float
    """The best loss that it knew."""
    ten_gpu_hours: PurchaseDocument | None
    """null where less than one GPU-hour was spent: that is too far to see."""
    tenth_of_the_bill: PurchaseDocument


class StudySummary(Document):
    """A study without its spec."""

    name: str
    state: StudyState
    message: str
    pending: list[str]
    """What was asked for and not carried out yet, in order."""
    labels: dict[str, str]
    max_trials: int
    trials: TrialCounts
    best: BestDocument | None
    spent: SpentDocument
    usage: UsageDocument
    savings: SavingsDocument
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    dashboard: str | None
    """Path of the study's page in optuna-dashboard, once the study is open there."""


class PastDocument(Document):
    """An earlier study that a study learns from."""

    study: str
    similarity: float
    """How much it probably tells, from model, data and space; 1 for the same."""
    trials: int
    examples: int
    """Its losses are those after so many examples."""
    weight: float | None
    """How far it is trusted since the model was last fitted: 0 not at all, at most its similarity; null before that."""


class StudyDocument(StudySummary):
    """A study."""

    leader: LeaderDocument | None
    """null before the first rung."""
    reserve: ReserveDocument | None
    """null without a cap, and once there is nothing to keep back for."""
    spec: dict[str, Any]
    """As posted."""
    resolved: dict[str, Any]
    """The spec with everything expanded: paths, preset, space, rungs."""
    past: list[PastDocument]
    """Earlier studies that it learns from."""
    edges: list[EdgeDocument]
    """Ranges that the best trials would leave, with the command that widens them."""
    outlook: OutlookDocument | None
    """What more compute would be expected to buy; null where the search does not say."""
    forecast: ForecastDocument | None = None
    """What it will have cost in the end, and when that will be; null before anything is measured and unless it runs."""
    standstill: str | None = None
    """Why it does not go on: all workers that there were are quarantined. null if that is not so."""
    confirmation: ConfirmationDocument | None
    """The race of the best trials and the baseline; null before the search has ended, and without `confirm`."""
    last_event: int = 0
    """Id of its newest event, from which a stream of its events can go on; 0 before the first."""
    etag: str
    """For `If-Match` of a change, of an end and of a deletion; the `ETag` header of the same answer."""


class CreatedStudyDocument(StudyDocument):
    """A study that was just made."""

    warnings: list[str] = Field(default_factory=list)
    """What is allowed but probably not meant, as `validate` says it."""
