"""What a user posts. YAML and JSON alike; unknown keys are errors; keys written beside a preset override it."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.spec.objectives import LOSS, TIMED, WrittenObjective, require_order
from hpo_service.spec.past import MOST_STUDIES
from hpo_service.spec.problems import problems_from
from hpo_service.spec.stop_when import StopWhen
from hpo_service.spec.times import Moment
from trainer.spec import DataSpec, ModelSpec, QualityThresholds, TrainingSettings

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
MAX_TRIALS = 100_000
MAX_ENQUEUED = 1000
_TAKEN_NAME = "confirm"

StrategyName = Literal["freeze_thaw", "asha", "successive_halving", "hyperband", "median", "none"]
SamplerName = Literal["tpe", "gp", "cmaes", "qmc", "random", "nsgaii"]
EarlierStudies = Annotated[
    list[Annotated[str, Field(pattern=NAME_PATTERN)]], Field(min_length=1, max_length=MOST_STUDIES)
]
Label = Annotated[str, Field(max_length=256)]
Point = Annotated[dict[str, Any], Field(max_length=64)]


def _require_free_name(name: str) -> str:
    # In Optuna's tables project/confirm would be the confirmation of the default project's study `project`.
    if name == _TAKEN_NAME:
        raise ValueError(f"a study cannot be called {_TAKEN_NAME!r}; choose another name")
    return name


class _Section(BaseModel):
    """Part of a spec. The text below a field is its description in the served JSON schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


class Metadata(_Section):
    """How the study is called."""

    name: Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(_require_free_name)]
    """Unique in the project: letters, digits, dot, underscore, dash; at most 63 characters."""
    labels: Annotated[dict[str, Label], Field(max_length=32)] = Field(default_factory=dict)
    """Free text for people and filters."""


class SearchSettings(_Section):
    """How the space is searched."""

    strategy: StrategyName = "freeze_thaw"
    """freeze_thaw models all curves and resumes or starts what promises most per cost (it needs no sampler),
    asha advances the best third from rung to rung at once, successive_halving when all trials of a bracket have reached
    the rung, hyperband is asha in several brackets that begin at later and later rungs, median drops what is worse than
    the median of its peers, none trains every trial to its end."""
    sampler: SamplerName = "tpe"
    """Where new trials come from, except with freeze_thaw: tpe, gp (a Gaussian process, needs torch), cmaes (moves
    numeric parameters that all trials use, draws the others), nsgaii (a genetic algorithm), qmc (an even Sobol
    sequence), random."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Same seed, same results in the same order: same proposals."""
    deterministic: bool = False
    """Decide by predicted instead of measured cost, so that a study ends the same however often it was interrupted."""
    reduction_factor: Annotated[int, Field(ge=2, le=10)] = 3
    """asha, successive_halving, hyperband: one in this many trials advances; also the distance between rungs."""
    first_rung_fraction: Annotated[float, Field(ge=0.005, le=0.5)] = 0.06
    """The first rung, as a share of the largest trial."""
    startup_trials: Annotated[int, Field(ge=1, le=1000)] = 3
    """median: this many peers must have reached a rung before a trial is dropped there."""
    evaluations: Annotated[int, Field(ge=1, le=100)] = 1
    """none: how often each trial is evaluated, the end included."""
    warm_start: Literal["auto", "off"] | EarlierStudies = "auto"
    """freeze_thaw: earlier studies of the project to learn from. auto: the most similar ones, in a deterministic study
    none; off: none; or a list of their names. They are trusted as far as they rank the new results right."""
    stop_when: StopWhen | None = None
    """freeze_thaw: end the search early when little is left to gain."""
    objectives: Annotated[
        tuple[WrittenObjective, ...], Field(min_length=1, max_length=4), AfterValidator(require_order)
    ] = (LOSS,)
    """What to search for, the loss first. With several, every decision weighs them anew and the search looks for their
    Pareto front; `best` stays the lowest loss."""


class BudgetSettings(_Section):
    """When to stop. Every cap is hard: a slice is begun only if what it is expected to take still fits, and one that
    takes longer is stopped at the cap, with a snapshot."""

    max_trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 24
    """Trials to start, baseline and enqueued ones included."""
    max_parallel: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Slices at the same time; default as many as there are workers, in a deterministic study one."""
    max_examples: Annotated[int, Field(ge=1)] | None = None
    """Training examples seen by all trials together."""
    max_gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Hours of occupied workers times their GPUs."""
    max_cost_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Money, at the service's price for a GPU-hour."""
    max_wall_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Hours on the clock since the study began to run, pauses included."""
    deadline: Moment | None = None
    """A point in time with its zone, such as 2030-01-01T00:00:00Z."""


class ConfirmSettings(_Section):
    """After the search: the best trials and the baseline are trained again with new seeds, until they can be told
    apart. Its bill is apart from the search's."""

    top: Annotated[int, Field(ge=1, le=10)] = 3
    """The best so many searched trials are candidates, beside the baseline."""
    seeds: Annotated[int, Field(ge=1, le=20)] = 3
    """Seeds (initialization and data order) that a candidate is trained with at most, one at a time."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """What it may cost: this share of budget.max_examples, without that cap of the examples that the search took. One
    run each of the best trial and the baseline is always allowed."""


CONFIRM_BY_DEFAULT: ConfirmSettings | None = None
"""What a spec that does not say `confirm` gets: no confirmation. It trains the best and the baseline to their ends once
more at least, however small the search was, and what a study costs is its user's decision. `hpo demo` asks for one."""


class Resources(_Section):
    """What one trial occupies."""

    gpus_per_trial: Annotated[int, Field(ge=1, le=1024)] = 1
    """GPUs that one trial is trained on; above 1 the base model is sharded over them (ZeRO-3)."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often a slice is tried when workers are lost or the infrastructure fails."""
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    """Free slots go to the study with the highest priority that can use them; running slices of others give way at
    their next rung, with nothing lost. Studies of one priority share what is left by the GPU time they used lately."""


class StudySpec(_Section):
    """A study: base model, data, search space, search, budget."""

    api_version: Literal["hpo/v1"] = Field(default="hpo/v1", alias="apiVersion")
    """Version of this format."""
    kind: Literal["Study"] = "Study"
    """Always Study."""
    metadata: Metadata
    """Name and labels."""
    preset: Annotated[str, Field(max_length=64)] | None = None
    """A search space of ours to start from; everything written beside it overrides it, the space name by name."""
    model: ModelSpec
    """The base model on disk."""
    data: DataSpec
    """Training and evaluation rows on disk."""
    data_checks: QualityThresholds = QualityThresholds()
    """What is checked in the data before the first trial starts, and when it warns or fails."""
    space: Annotated[dict[str, Any], Field(max_length=64)] = Field(default_factory=dict)
    """By parameter: a value (or {value: ...}), {low, high, log, step}, {choices: [...]} or {expr: "2 * lora_r"};
    `when: {other: [values]}` uses a parameter only for these values of another one."""
    constraints: Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=64)] = Field(
        default_factory=list
    )
    """Expressions that every trial fulfils."""
    training: TrainingSettings = TrainingSettings()
    """How trials are run."""
    search: SearchSettings = SearchSettings()
    """Strategy and sampler."""
    budget: BudgetSettings = BudgetSettings()
    """Caps."""
    confirm: ConfirmSettings | None = CONFIRM_BY_DEFAULT
    """Whether, and how, the winner is confirmed once the search has ended; null: not at all, because it costs another
    `share` of the search, which is for you to decide."""
    resources: Resources = Resources()
    """What one trial occupies."""
    baseline: Point | None = None
    """What you have now, in real values. It is trial 0, is trained to its end, and results are compared with it.
    Default: the preset's published values, where they lie in the space."""
    enqueue: Annotated[list[Point], Field(max_length=MAX_ENQUEUED)] = Field(default_factory=list)
    """Points to try first, in real values; what a point leaves out is sampled."""


def require_consistent(spec: StudySpec) -> None:
    """Raise InvalidSpec if sections contradict each other."""
    problems = [*_timed(spec), *_about_search(spec.search)]
    if problems:
        raise InvalidSpec(problems[0].detail, problems=problems)


def _timed(spec: StudySpec) -> list[Problem]:
    clocked = ("max_gpu_hours", "max_cost_usd", "max_wall_hours", "deadline")
    timed = [key for key in clocked if getattr(spec.budget, key) is not None]
    return [
        Problem(
            detail=f"search.deterministic does not go with budget.{key}, which depends on the clock; "
            "use max_trials or max_examples.",
            pointer=f"/budget/{key}",
        )
        for key in timed
        if spec.search.deterministic
    ]


def _about_search(search: SearchSettings) -> Iterator[Problem]:
    if search.stop_when is not None and search.strategy != "freeze_thaw":
        yield Problem(
            detail=f"search.stop_when needs a model of what is left to gain, which {search.strategy} has not; "
            "use strategy freeze_thaw or remove stop_when.",
            pointer="/search/stop_when",
        )
    if not isinstance(search.warm_start, str) and search.strategy != "freeze_thaw":
        yield Problem(
            detail=f"search.warm_start names studies, but {search.strategy} does not learn from others; use strategy "
            "freeze_thaw or remove warm_start.",
            pointer="/search/warm_start",
        )
    if len(search.objectives) > 1:
        yield from _about_objectives(search)


def _about_objectives(search: SearchSettings) -> Iterator[Problem]:
    if search.strategy == "median":
        detail = "strategy median drops trials by their loss alone; use freeze_thaw or asha, or remove the objectives."
        yield Problem(detail=detail, pointer="/search/objectives")
    if search.stop_when is not None:
        detail = "search.stop_when watches the loss alone; remove it or the other objectives."
        yield Problem(detail=detail, pointer="/search/stop_when")
    for index, objective in enumerate(search.objectives):
        if search.deterministic and objective.name in TIMED:
            yield Problem(
                detail=f"search.deterministic does not go with the objective {objective.name}, which depends on the "
                "clock; use adapter_parameters.",
                pointer=f"/search/objectives/{index}",
            )


def parse_spec(document: object) -> StudySpec:
    """The spec in a loaded YAML or JSON document; InvalidSpec with a problem for everything that is wrong."""
    if not isinstance(document, Mapping):
        raise InvalidSpec(f"a study spec is a mapping of keys, not {type(document).__name__}.")
    try:
        spec = StudySpec.model_validate(document)
    except ValidationError as error:
        problems = problems_from(error, document, StudySpec)
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InvalidSpec(f"the study spec has {count}: {problems[0].detail}", problems=problems) from None
    require_consistent(spec)
    return spec
