"""One decision of freeze-thaw search on one view."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.stats import qmc

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Advance, Numbers, Start, Step, StudyView, TrialView
from hpo_service.search.strategies.freeze_thaw import candidates
from hpo_service.search.strategies.freeze_thaw.acquisition import LEAST_CHANCE, log_expected_improvement
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array
from hpo_service.search.strategies.freeze_thaw.knowledge import Knowledge
from hpo_service.search.strategies.freeze_thaw.opening_trials import Opening
from hpo_service.search.strategies.freeze_thaw.past import Past
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from hpo_service.search.strategies.nearness import Tried
from hpo_service.spec.space import Assignment

_FEWEST_MEASURED = 4
_DRAWS = 200
#: with no new trial to start, paused ones go on while a full trial's cost is expected to improve the loss by this share
_WORTH_IMPROVING = 3e-3
#: reason and numbers of a start where nothing better was found
_EVENLY: tuple[str, Numbers] = ("an even draw", {"rule": "draw"})


@dataclass(frozen=True)
class _Option:
    """A slice that could be next. Losses are logarithms; `score` is log expected improvement per cost."""

    trial: TrialView | None
    point: Array | None
    mean: float
    deviation: float
    log_improvement: float
    cost: float
    score: float

    @property
    def name(self) -> str:
        return "a new trial" if self.trial is None else f"trial {self.trial.number}"


class Decision:
    """`ends_of` answers the examples [n] at the end of trials at points [n, dimensions]."""

    def __init__(
        self,
        view: StudyView,
        cube: Cube,
        settings: FreezeThawSettings,
        ends_of: Callable[[Array], Array],
        past: Past | None = None,
    ) -> None:
        self._view, self._cube, self._settings, self._ends_of = view, cube, settings, ends_of
        self._random = np.random.default_rng([view.seed, view.decision_number])
        self._opening = Opening(view, cube, past) if past else None
        self._known = Knowledge(cube, view, settings, self._random, past or None)
        self._tried = Tried(cube.space, view)

    @cached_property
    def _may_start(self) -> bool:
        return len(self._view.trials) < self._view.max_trials

    def design(self) -> Step | None:
        """An evenly spread configuration, as long as there is too little to learn from."""
        wanted = max(self._settings.design_points, self._view.slots)
        wanted = min(wanted, max(_FEWEST_MEASURED, self._view.max_trials // 2))
        started = sum(not trial.baseline for trial in self._view.trials)
        if self._opening is not None:
            trusted = started < wanted or self._known.trend is not None
            if trusted and self._opening.leader is not None:
                return self._advance(self._opening.leader, "the leader of earlier studies", {"rule": "leader"})
            offers = started < wanted and started % 2 == 0 and self._may_start and not self._opening.misleads
            if offers and (step := self._offered(self._opening.points)) is not None:
                return step
            if not trusted:
                wanted += self._opening.tried  # part of the design went to a past that misleads
        enough = started >= wanted and len(self._known.measured) >= _FEWEST_MEASURED
        if enough or not self._may_start:
            return None
        generator = qmc.Sobol(len(self._cube.names), seed=np.random.default_rng([self._view.seed, 2**31]))
        count = 1 << max(4, started.bit_length())
        points = generator.random(count)[started:]
        return self._start(points, f"point {started + 1} of an even design", {"rule": "design"})

    def by_model(self) -> Step | None:
        """The mixture; None if there is nothing to resume or to start that is worth it."""
        if not self._known.measured:
            return None
        if self._known.trend is not None and self._random.random() < self._settings.doubt_share:
            self._known = replace(self._known, past=None)
        step = self._by_rank() if self._random.random() < self._settings.advance_share else None
        if step is None and self._random.random() < self._settings.exploit_share:
            step = self._most_promising()
        step = step or self._by_improvement()
        return None if step is None else replace(step, memory=self._known.memory)

    @cached_property
    def _paused(self) -> list[int]:
        """Rows of the measured trials that can be resumed."""
        return [
            row
            for row, trial in enumerate(self._known.measured)
            if trial.standing == "paused" and trial.next_rung is not None
        ]

    def _by_rank(self) -> Advance | Start | None:
        one_in = self._settings.advance_one_in
        paused = {trial.number: trial for trial in (self._known.measured[row] for row in self._paused)}
        for rung in sorted({trial.rung for trial in paused.values()}, reverse=True):
            ranked = ranking.at_rung(self._view, rung)
            for rank, trial in enumerate(ranked[: len(ranked) // one_in], start=1):
                if trial.number in paused and trial.rung == rung:
                    reason = f"rank {rank} of {len(ranked)} at {rung} examples: the best of {one_in} advance"
                    return self._advance(trial, reason, {"rule": "advance", "rank": rank, "peers": len(ranked)})
        chance, enough = self._random.random(), len(self._known.measured) >= _FEWEST_MEASURED
        if not self._may_start or not enough:
            return None
        if chance < self._settings.evolve_share:
            children = np.array([candidates.child(self._known.ranked, self._random) for _ in range(16)])
            return self._start(children, "a child of the best trials", {"rule": "evolve"}, self._leading)
        if chance < self._settings.evolve_share + self._settings.draw_share:
            return self._drawn()
        return None

    def _drawn(self) -> Start:
        return self._start(np.zeros((0, len(self._cube.names))), "", {})

    def _most_promising(self) -> Advance | None:
        if not self._paused:
            return None
        mean, deviation = self._known.final_of_measured
        row = min(self._paused, key=lambda row: (mean[row], row))
        predicted = _loss(mean[row])
        numbers: Numbers = {
            "rule": "exploit",
            "predicted_loss": predicted,
            "predicted_sd": _spread(mean, deviation, row),
        }
        reason = f"the paused trial with the best predicted end, {predicted:.5g}"
        return self._advance(self._known.measured[row], reason, numbers)

    def _by_improvement(self) -> Advance | Start | None:
        return self._best_of([*self._resumable(), *self._new()], may_start=self._may_start)

    def _best_of(self, options: list[_Option], *, may_start: bool) -> Advance | Start | None:
        options = sorted(options, key=lambda option: -option.score)
        options = [option for option in options if option.score > -np.inf]
        best, found = self._first_possible(options)
        if best is None:
            return self._drawn() if options else None
        if best.trial is not None and options[0].trial is None:
            self._tried.anywhere(self._random)  # what looked better is no point for a trial; is there any?
        if not may_start and best.score < np.log(_WORTH_IMPROVING):
            return None
        others = (option for option in options if option is not best)
        runner_up = next((option for option in others if option.name != best.name or option.trial is None), None)
        most = max(option.log_improvement for option in options)
        numbers: Numbers = {
            **self._numbers(best),
            "largest_expected_improvement": _loss(self._known.curves.best + most),
            **_about(runner_up, self._known.curves.best),
        }
        reason = (
            f"expected to improve the best loss by {numbers['expected_improvement']:.3g}, "
            f"at {best.cost:.2f} of a full trial"
        )
        if best.trial is not None:
            return self._advance(best.trial, reason, numbers)
        assert found is not None
        return self._begun(found, reason, numbers)

    def _first_possible(self, options: list[_Option]) -> tuple[_Option | None, Assignment | None]:
        """The first trial to resume, or configuration that can be trained and is new, with its assignment."""
        for option in options:
            if option.point is None:
                return option, None
            found = self._possible(option.point, self._leading)
            if found is not None:
                return option, found
        return None, None

    def _resumable(self) -> list[_Option]:
        rows = np.array(self._paused, dtype=np.intp)
        if not len(rows):
            return []
        trials = tuple(self._known.measured[row] for row in rows)
        mean, deviation = (part[rows] for part in self._known.final_of_measured)
        left = self._known.ends(trials) - np.array([trial.rung for trial in trials])
        cost, improvement = self._cost(self._known.features[rows], left), self._improvement(mean, deviation)
        return [
            _Option(trial, None, *map(float, numbers))
            for trial, *numbers in zip(
                trials, mean, deviation, improvement, cost, improvement - np.log(cost), strict=True
            )
        ]

    def _new(self) -> Iterable[_Option]:
        if not self._may_start or len(self._known.measured) < 2:
            return []
        best_first = self._cube.snap(
            candidates.proposed(
                self._known.ranked,
                lambda points: self._assess(points)[-1],
                self._settings,
                self._random,
                self._remembered,
            )
        )
        best_first = candidates.distinct(best_first)
        free = self._tried.free(self._tried.places.of_shares(best_first), self._leading)
        best_first = best_first[free][: self._settings.global_candidates]
        if not len(best_first):
            self._tried.anywhere(self._random)
            return []
        return [
            _Option(None, point, *map(float, numbers))
            for point, *numbers in zip(best_first, *self._assess(best_first), strict=True)
        ]

    @property
    def _remembered(self) -> Array:
        """The best of a trusted past."""
        trend, count = self._known.trend, self._settings.remembered_candidates
        return np.zeros((0, len(self._cube.names))) if trend is None else trend.top(count)

    def _assess(self, points: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Mean, deviation, log improvement, cost and score of new configurations, [n] each."""
        points = self._cube.snap(points)
        features, ends = self._cube.features(points), self._ends_of(points)
        mean, deviation = self._known.final_of_new(features, ends)
        cost, chance = self._cost(features, ends), self._known.feasibility.chance(features)
        improvement = self._improvement(mean, deviation) + np.log(chance)
        return mean, deviation, improvement, cost, np.where(chance < LEAST_CHANCE, -np.inf, improvement - np.log(cost))

    def _improvement(self, mean: Array, deviation: Array) -> Array:
        return log_expected_improvement(mean, deviation, self._known.curves.best)

    def _cost(self, features: Array, examples: Array) -> Array:
        """In full trials of middling cost."""
        share = examples / self._view.ladder[-1] + self._settings.resume_cost
        return share * self._known.cost.relative(features)

    def _numbers(self, option: _Option) -> Numbers:
        best = np.exp(self._known.curves.best)
        return {
            "rule": "improvement",
            "expected_improvement": float(best * np.exp(option.log_improvement)),
            "predicted_loss": _loss(option.mean),
            "predicted_sd": float(np.exp(option.mean) * option.deviation),
            "best_loss": float(best),
            "cost_in_full_trials": option.cost,
        }

    def _advance(self, trial: TrialView, reason: str, numbers: Numbers) -> Advance:
        assert trial.next_rung is not None
        return Advance(trial_number=trial.number, until_examples=trial.next_rung, reason=reason, numbers=numbers)

    @cached_property
    def _leading(self) -> list[int]:
        """Numbers of the trials that a new one may refine."""
        return self._known.leading(self._settings.local_parents)

    def _offered(self, points: Array) -> Start | None:
        """The first of `points`, known from elsewhere, that can be trained here and is near no trial."""
        for point in points:
            found = self._possible(point)
            if found is not None:
                return self._begun(found, "good in earlier studies", {"rule": "portfolio"})
        return None

    def _start(self, points: Array, reason: str, numbers: Numbers, refined: Sequence[int] = ()) -> Start:
        """The first of `points` that can be trained and is near no trial but one it refines, else an even draw.

        Those near failures come last. Raises `Exhausted` if there is none.
        """
        draws = candidates.even(len(self._cube.names), _DRAWS, self._random)
        both = np.concatenate([points, draws])
        places = self._tried.places.of_shares(both)
        free = np.concatenate(
            [self._tried.free(places[: len(points)], refined), self._tried.free(places[len(points) :])]
        )
        unlikely = self._known.feasibility.chance(self._cube.features(both)) < LEAST_CHANCE
        for row in np.argsort(unlikely, kind="stable"):
            listed = row < len(points)
            found = self._possible(both[row], refined if listed else ()) if free[row] else None
            if found is not None:
                return self._begun(found, reason, numbers) if listed else self._begun(found, *_EVENLY)
        found, _ = self._tried.anywhere(self._random)
        return self._begun(found, *_EVENLY)

    def _begun(self, found: Assignment, reason: str, numbers: Numbers) -> Start:
        """A start that says which trials it refines, if it does."""
        refined = [f"trial {number}" for number in self._tried.refines(found)]
        if refined:
            reason = f"{reason}; it refines {' and '.join(refined)}"
        return Start(trial_number=None, reason=reason, assignment=found, numbers=numbers)

    def _possible(self, point: Array, refined: Sequence[int] = ()) -> Assignment | None:
        """What the point stands for, if it can be trained and is near no trial but one that it refines."""
        found = self._cube.assignment(point)
        return found if found is not None and self._tried.allows(found, refined) else None


def _loss(log_loss: float) -> float:
    return float(np.exp(log_loss))


def _spread(mean: Array, deviation: Array, row: int) -> float:
    return float(np.exp(mean[row]) * deviation[row])


def _about(runner_up: _Option | None, best: float) -> Numbers:
    if runner_up is None:
        return {"runner_up": None}
    return {
        "runner_up": runner_up.name,
        "runner_up_predicted_loss": _loss(runner_up.mean),
        "runner_up_expected_improvement": float(_loss(best) * np.exp(runner_up.log_improvement)),
        "runner_up_cost_in_full_trials": runner_up.cost,
    }
