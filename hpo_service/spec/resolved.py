"""A study spec with everything expanded: what the dispatcher reads. Nothing in it depends on files any more."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from hpo_service.core import study_rules
from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.core.problems import Problems
from hpo_service.spec import points
from hpo_service.spec.confirmation import ConfirmationPlan
from hpo_service.spec.gpus_per_trial import require_within, study_training
from hpo_service.spec.objectives import LOSS
from hpo_service.spec.past import PastStudy, Traits
from hpo_service.spec.presets import PRESETS, load_preset
from hpo_service.spec.sampler_support import require_sampler
from hpo_service.spec.space import Infeasible, SearchSpace
from hpo_service.spec.study import (
    BudgetSettings,
    ConfirmSettings,
    Metadata,
    Resources,
    SearchSettings,
    StudySpec,
    parse_spec,
    require_consistent,
)
from trainer.data.rows import total_examples
from trainer.spec import (
    DataFormat,
    DataSpec,
    Dtype,
    Frozen,
    ModelSpec,
    Parameters,
    QualityThresholds,
    TrainingSettings,
    TrialSpec,
)

_UNLIMITED_PARALLEL = 1024
_FREEZE_THAW_RUNG_FACTOR = 1.7
_LATEST_FIRST_RUNG = 0.5


#: so many rows stand in for data that could not be read
_STAND_IN_ROWS = 10_000

Draft = tuple[SearchSpace, TrainingSettings, dict[str, Any] | None, tuple[dict[str, Any], ...]]
"""A space, and the training settings, the baseline and the first points that follow from it."""
Further = Callable[[StudySpec, SearchSpace], Iterable[Problem]]
"""Finds more that is wrong with an expanded spec and its space."""


class ResolvedBudget(BudgetSettings):
    """The caps, with the number of parallel slices decided."""

    max_parallel: int


class ResolvedStudy(Frozen):
    """Self-contained and the same after a trip through JSON.

    `baseline` and `enqueue` are points that lie in the space; the last `preset_points` of `enqueue` are the preset's,
    the others the spec's. `ladder` holds the study's rungs in examples. `train_rows` and `eval_rows` are what a trial
    sees after split and limits. `training` holds the ranks and, where there are several, the adapters that all trials
    share. `confirmation` makes it a study that confirms another. `dtype_device` is the device that resolved a
    `model.dtype` of auto; empty: the spec names the dtype, or nothing has run.
    """

    metadata: Metadata
    preset: str | None
    model: ModelSpec
    data: DataSpec
    data_checks: QualityThresholds
    space: dict[str, Any]
    training: TrainingSettings
    search: SearchSettings
    budget: ResolvedBudget
    resources: Resources
    baseline: dict[str, Any] | None
    enqueue: tuple[dict[str, Any], ...]
    preset_points: int = 0
    train_rows: int
    eval_rows: int
    ladder: tuple[int, ...]
    confirm: ConfirmSettings | None = None
    confirmation: ConfirmationPlan | None = None
    traits: Traits | None = None
    past: tuple[PastStudy, ...] = ()
    dtype_device: str = ""

    def search_space(self) -> SearchSpace:
        """The space; keep it, building it takes a moment."""
        return SearchSpace.from_json(self.space)

    def limits(self) -> study_rules.Limits:
        """The hard caps."""
        budget = self.budget
        return study_rules.Limits(
            max_trials=budget.max_trials,
            max_examples=budget.max_examples,
            max_gpu_hours=budget.max_gpu_hours,
            max_cost_usd=budget.max_cost_usd,
            max_wall_hours=budget.max_wall_hours,
            deadline=budget.deadline,
        )

    def trial_spec(self, parameters: Parameters, seed: int | None = None) -> TrialSpec:
        """The trial that these parameters make, with the study's seed or another one.

        Only a confirmation looks at test rows, and it is never content with some of the evaluation rows.
        """
        seen = {"test": None} if self.confirmation is None else {"max_eval_examples": None}
        training = self.training if seed is None else self.training.model_copy(update={"seed": seed})
        data = self.data.model_copy(update=seen)
        return TrialSpec(model=self.model, data=data, parameters=parameters, training=training)

    def pinned(self, dtype: Dtype, device: str) -> Self:
        """The study once `model.dtype: auto` is known to be `dtype`, from the first device that took a slice."""
        return self.model_copy(update={"model": self.model.in_dtype(dtype), "dtype_device": device})

    def confirming(self, plan: ConfirmationPlan) -> Self:
        """The study that confirms this one: nothing but the plan's runs, each from its start to its end at once.

        Of the caps only the deadline holds for it.
        """
        budget = ResolvedBudget(
            max_trials=len(plan.candidates) * len(plan.seeds),
            max_parallel=self.budget.max_parallel,
            deadline=self.budget.deadline,
        )
        return self.model_copy(
            update={
                "budget": budget,
                "ladder": (),
                "baseline": None,
                "enqueue": (),
                "preset_points": 0,
                "confirm": None,
                "past": (),
            }
            | {"confirmation": plan, "search": self.search.model_copy(update={"objectives": (LOSS,)})}
        )

    def trial_rungs(self, parameters: Parameters) -> tuple[int, ...]:
        """Where a trial with these parameters stops to be judged; the last one is its end."""
        return study_rules.trial_ladder(self.ladder, total_examples(self.train_rows, parameters.epochs))

    def extend(self, space: Mapping[str, Any], budget: Mapping[str, Any]) -> Self:
        """The study with a wider space and changed caps. The ladder stays, so that all trials stay comparable.

        Raises:
            InvalidSpec: the space would not only grow, or a cap makes no sense.
        """
        grown = self.search_space().extend(space)
        require_within(grown, self.training)
        written = self.budget.model_dump(mode="json") | dict(budget)
        document = {
            "metadata": self.metadata,
            "model": self.model,
            "data": self.data,
            "search": self.search,
            "budget": written,
        }
        checked = parse_spec(document)
        return self.model_copy(update={"space": grown.to_json(), "budget": _budget(checked)})


def resolve(
    spec: StudySpec,
    *,
    model_path: str,
    train: str,
    eval: str | None,
    train_rows: int,
    eval_rows: int,
    test: str | None = None,
    data_format: DataFormat | None = None,
    traits: Traits | None = None,
    further: Further | None = None,
) -> ResolvedStudy:
    """Expand the preset, check the space and every point; paths and rows were checked by the caller.

    `data_format` is what the rows were found to be: it is pinned, so that workers and exports are told the same.
    `further` is asked about the space as well, once there is one.

    Raises:
        InvalidSpec: with everything that is wrong: the preset does not exist, the space is wrong, a point lies outside
            it, trials do not suffice.
    """
    problems = Problems()
    merged = expand(spec)
    draft = drafted(merged, problems, train_rows, traits, further)
    problems.refuse()
    assert draft is not None
    space, training, baseline, enqueue = draft
    longest = total_examples(train_rows, space.largest("epochs"))
    data = {"train": train, "eval": eval, "test": test, "format": data_format or merged.data.format}
    return ResolvedStudy(
        metadata=merged.metadata,
        preset=merged.preset,
        model=merged.model.model_copy(update={"path": model_path}),
        data=merged.data.model_copy(update=data),
        data_checks=merged.data_checks,
        space=space.to_json(),
        training=training,
        search=merged.search,
        budget=_budget(merged),
        resources=merged.resources,
        baseline=baseline,
        enqueue=enqueue,
        preset_points=len(enqueue) - len(merged.enqueue),
        train_rows=train_rows,
        eval_rows=eval_rows,
        ladder=_ladder(merged.search, longest, space),
        confirm=merged.confirm,
        traits=traits,
    )


def drafted(
    spec: StudySpec, problems: Problems, train_rows: int | None, traits: Traits | None, further: Further | None
) -> Draft | None:
    """Everything that follows from the space of an expanded spec; None with a problem.

    Without `train_rows`, because the data are wrong, what depends on them is not looked at.
    """
    with problems.gathered():
        require_consistent(spec)
    with problems.gathered():
        require_sampler(spec.search)
    if train_rows is None and "train_rows" in f"{spec.space} {spec.constraints}":
        return None
    rows = _STAND_IN_ROWS if train_rows is None else train_rows
    with problems.gathered():
        space = SearchSpace.parse(spec.space, spec.constraints, {"train_rows": rows})
        training = spec.training
        with problems.gathered():
            training = study_training(spec, space)
        problems.add(*(further(spec, space) if further is not None else ()))
        baseline: dict[str, Any] | None = None
        with problems.gathered():
            baseline = _baseline(spec, space)
        enqueue: tuple[dict[str, Any], ...] = ()
        with problems.gathered():
            enqueue = _enqueued(spec, space, baseline, traits)
        if train_rows is not None:
            with problems.gathered():
                _require_a_trial(spec, space, baseline, train_rows)
        return space, training, baseline, enqueue
    return None


def expand(spec: StudySpec) -> StudySpec:
    """The spec with its preset's keys under its own; the space is merged name by name, other sections key by key."""
    if spec.preset is None:
        if not spec.space:
            detail = f"there is nothing to search; write a space or a preset: {', '.join(PRESETS)}."
            raise InvalidSpec(detail, problems=[Problem(detail=detail, pointer="/space", allowed=PRESETS)])
        return spec
    return parse_spec(_merged(load_preset(spec.preset).document, spec.model_dump(exclude_unset=True, by_alias=True)))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        sections = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = {**under, **value} if sections and isinstance(under, Mapping) else value
    return merged


def _baseline(spec: StudySpec, space: SearchSpace) -> dict[str, Any] | None:
    """The user's point, completed with published values; else the published values if all of them lie in the space."""
    published = load_preset(spec.preset).baseline if spec.preset is not None else {}
    if spec.baseline is not None:
        return points.completed(space, _point(space, spec.baseline, "/baseline"), published)
    if spec.preset is None:
        return None
    point = points.completed(space, {}, published)
    return point if points.is_complete(space, point) else None


def _enqueued(
    spec: StudySpec, space: SearchSpace, baseline: dict[str, Any] | None, traits: Traits | None
) -> tuple[dict[str, Any], ...]:
    """The user's points, then those that the preset knows: at most a third of the trials."""
    problems, written = Problems(), list[dict[str, Any]]()
    for index, point in enumerate(spec.enqueue):
        with problems.gathered():
            written.append(_point(space, point, f"/enqueue/{index}"))
    problems.refuse()
    tried = [*written, *([] if baseline is None else [baseline])]
    _require_room(spec, len(tried))
    if spec.preset is None:
        return tuple(written)
    most = spec.budget.max_trials
    known = points.portfolio(
        space,
        load_preset(spec.preset),
        None if traits is None else traits.model_parameters,
        besides=tried,
        room=min(most // 3, most - len(tried)),
    )
    return (*written, *known)


def _point(space: SearchSpace, written: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """The sampled part of a point; refused if it lies outside the space."""
    try:
        return space.point(written, pointer)
    except Infeasible as error:
        raise InvalidSpec(error.detail, problems=[Problem(detail=error.detail, pointer=pointer)]) from error


def _require_room(spec: StudySpec, count: int) -> None:
    if count > spec.budget.max_trials:
        detail = (
            f"baseline and enqueue are {count} points but budget.max_trials is {spec.budget.max_trials}; "
            "raise it or remove points."
        )
        raise InvalidSpec(detail, problems=[Problem(detail=detail, pointer="/budget/max_trials")])


def _require_a_trial(spec: StudySpec, space: SearchSpace, baseline: dict[str, Any] | None, train_rows: int) -> None:
    """Refuse a budget that ends before the baseline and one searched trial do."""
    shortest = min(total_examples(train_rows, probe.parameters.epochs) for probe in space.probes)
    first = 0 if baseline is None else shortest
    if baseline is not None and points.is_complete(space, baseline):
        first = total_examples(train_rows, space.assignment(space.point(baseline)).parameters.epochs)
    for name, cap, needed, unit in (
        ("max_trials", spec.budget.max_trials, 1 if baseline is None else 2, "trials"),
        ("max_examples", spec.budget.max_examples, first + shortest, "examples"),
    ):
        if cap is not None and cap < needed:
            takes = f"the baseline ({first}) and " if baseline is not None and name == "max_examples" else ""
            what = "the baseline is one of them" if name == "max_trials" else f"{takes}one trial ({shortest}) take more"
            detail = f"budget.{name} is {cap}, too little: {what}; allow {needed} {unit} or more."
            raise InvalidSpec(detail, problems=[Problem(detail=detail, pointer=f"/budget/{name}")])


def _budget(spec: StudySpec) -> ResolvedBudget:
    parallel = spec.budget.max_parallel or (1 if spec.search.deterministic else _UNLIMITED_PARALLEL)
    return ResolvedBudget.model_validate({**spec.budget.model_dump(), "max_parallel": parallel})


def _ladder(search: SearchSettings, most_examples: int, space: SearchSpace) -> tuple[int, ...]:
    if search.strategy == "none":
        count = min(search.evaluations, most_examples)
        return tuple(round(most_examples * (index + 1) / count) for index in range(count))
    factor = _FREEZE_THAW_RUNG_FACTOR if search.strategy == "freeze_thaw" else float(search.reduction_factor)
    first = max(search.first_rung_fraction, _after_warmup(most_examples, space) / most_examples)
    return study_rules.ladder(most_examples, first, factor)


def _after_warmup(most_examples: int, space: SearchSpace) -> float:
    """So many examples that every trial of the space has taken a step beyond its warmup, or is half through it.

    Inside the warmup losses say nothing about the end: the first step has a learning rate of 0, so that all trials have
    the very loss of the base model there. Of n examples in batches of b a share w of the steps, rounded up twice, is at
    most w (n + b) + b examples.
    """
    warmup, batch = space.largest("warmup_ratio"), space.largest("effective_batch")
    if warmup == 0:
        return 0.0
    return min(_LATEST_FIRST_RUNG * most_examples, warmup * (most_examples + batch)) + batch + 1
