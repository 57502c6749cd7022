"""What the API answers, typed."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from hpo_service.domain import StudyState
from hpo_service.studies.confirmation_documents import ConfirmationDocument, ConfirmedDocument
from hpo_service.studies.document_base import Document as Document
from hpo_service.studies.document_base import SpentDocument as SpentDocument
from hpo_service.studies.forecasts import ForecastDocument

Item = TypeVar("Item")
TrialState = Literal["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"]
CheckState = Literal["passed", "warned", "failed", "pending", "off"]


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


class UsageDocument(Document):
    """What was computed, how fast and how well; running attempts count when they end."""

    steps: int
    tokens: int
    """Trained on, padding left out."""
    tokens_per_second: float | None
    """While training and waiting for batches; null if nothing was trained."""
    mfu: float | None
    """Model FLOPs of training per peak of the devices; null if the peak of any is unknown."""
    hfu: float | None
    """As `mfu`, with what activation checkpointing computes again."""
    busy: float | None
    """Share of the time in which a model was computed, to train or to evaluate; null if no time passed."""
    energy_joules: float | None
    """null if any attempt could not read a counter."""
    peak_memory_bytes: int
    load_seconds: float
    data_seconds: float
    train_seconds: float
    evaluate_seconds: float
    snapshot_seconds: float


class SavingsDocument(Document):
    """Examples that pruned and paused trials did not see, and their share of all trials trained to their end."""

    examples: int
    share: float


class ImprovementDocument(Document):
    """The best trial against the baseline after the same number of examples."""

    baseline_trial: int
    examples: int
    baseline_loss: float
    loss: float
    relative: float
    """Positive where the best trial is better."""


class BestDocument(Document):
    """The best trial so far."""

    trial_number: int
    loss: float
    examples: int
    provisional: bool
    """No trial has reached its end yet; this one leads at the highest rung."""
    parameters: dict[str, Any]
    improvement: ImprovementDocument | None
    confirmed: ConfirmedDocument | None = None
    """With it, `loss` is the mean over new seeds; else what the search saw, in which luck has a part."""


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
    confirmation: ConfirmationDocument | None
    """The race of the best trials and the baseline; null before the search has ended, and without `confirm`."""
    etag: str
    """For `If-Match` of a PATCH; the `ETag` header of the same answer."""


class Rung(Document):
    """The evaluation loss after so many examples."""

    examples: int
    loss: float | None
    """null if it was not finite."""


class TrialSummary(Document):
    """A trial."""

    number: int
    state: TrialState
    paused: bool
    """The trial waits on a rung for its next slice."""
    baseline: bool
    parameters: dict[str, Any]
    """Every hyperparameter with its real value; of a waiting trial those that were given."""
    loss: float | None
    """The final loss; null before the trial's end."""
    losses: list[Rung]
    examples_seen: int
    """The highest rung that was reached."""
    total_examples: int | None
    """Where the trial ends; null before it starts."""
    outcome: str | None
    """Why it failed."""
    message: str
    attempts: int
    seconds: float
    cost_usd: float
    usage: UsageDocument
    progress: dict[str, Any] | None
    """The last sign of life of its running slice."""
    started_at: datetime | None
    finished_at: datetime | None


class AttemptDocument(Document):
    """One execution of a slice. `outcome` is null while it runs."""

    slice_id: int
    attempt: int
    until_examples: int
    worker: str | None
    node: str | None
    """Where that worker is or was."""
    outcome: str | None
    cause: str | None
    """Why it was lost or failed, where that was no fault of the trial."""
    message: str
    started_at: datetime
    finished_at: datetime | None
    examples: int
    seconds: float
    cost_usd: float
    flops: float
    usage: UsageDocument
    devices: int
    device: str
    """Model of the accelerator, or cpu."""
    attention: str
    """The kernel that was chosen."""
    micro_batch: int | None
    """Examples that one device took at once."""
    predicted_memory_bytes: int | None
    """What the peak of memory was expected to be."""


class TrialDocument(TrialSummary):
    """A trial with its history."""

    history: list[AttemptDocument]
    adapter_available: bool
    """There is a snapshot to download the adapter from."""


class DataCheckDocument(Document):
    """A check of data, before anything is trained on them."""

    state: CheckState
    """failed: the report says so, or (`report` is null) the check itself could not be done."""
    job: int | None
    """Look at `/v1/data-checks/{job}` for how it goes on; null if it is off."""
    message: str
    """Why there is no report, if something went wrong."""
    report: dict[str, Any] | None
    """Verdict, findings and statistics; null while it is pending."""
    seconds: float
    """What the check took."""


class ValidationReport(Document):
    """What a study would be, without starting it."""

    name: str
    space: dict[str, Any]
    """The expanded space."""
    dimensions: int
    trials: int
    slices: int
    ladder: list[int]
    """Rungs in examples."""
    train_rows: int
    eval_rows: int
    expected_examples: int
    full_examples: int
    """If every trial were trained to its end."""
    expected_share: float
    expected_seconds: float | None
    """Worker seconds at the speed of earlier studies of this model; null if there are none."""
    expected_usd: float | None
    confirmation_examples: int | None
    """What a confirmation may take on top, at most; null without one."""
    confirmation_runs: int | None
    """How many runs that is."""
    baseline: dict[str, Any] | None
    past: list[PastDocument]
    """Earlier studies that it would learn from."""
    data_check: DataCheckDocument
    """The report on these data if there is one; else it is being made."""
    warnings: list[str]
    resolved: dict[str, Any]


class KnownPointDocument(Document):
    """A configuration that was published as good."""

    values: dict[str, Any]
    """Real values; what they leave out is as in the baseline."""
    source: str
    from_parameters: float
    """Meant for models of at least so many parameters."""
    to_parameters: float | None
    """And of at most so many; null: any."""


class SearchSpaceDocument(Document):
    """A search space that ships with the service."""

    name: str
    title: str
    baseline: dict[str, Any]
    """The published values, trial 0 of a study that names this preset."""
    portfolio: list[KnownPointDocument]
    """Other published configurations, in the order in which they are tried after trial 0."""
    document: dict[str, Any]
    """The keys that a study with this preset starts from."""
    source: str
    """The commented YAML."""


class CloneRequest(BaseModel):
    """A new study from the spec of another one."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=63)]
    changes: dict[str, Any] = Field(default_factory=dict, description="Merged into the spec (RFC 7396; null removes).")


class EnqueueRequest(BaseModel):
    """A point to try next, in real values; what it leaves out is sampled."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, Any]


class ExtendRequest(BaseModel):
    """What may change while a study exists: caps, and the space where it grows."""

    model_config = ConfigDict(extra="forbid")

    budget: dict[str, Any] = Field(default_factory=dict, description="Caps by name; null removes one.")
    space: dict[str, Any] = Field(
        default_factory=dict, description="By parameter: wider {low, high}, or {choices: [...]} with numbers added."
    )
