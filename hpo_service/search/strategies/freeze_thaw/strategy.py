"""Freeze-thaw search: every trial pauses at every rung; every free slot takes what is most likely to pay.

The idea is Swersky, Snoek, Adams (2014), "Freeze-Thaw Bayesian Optimization". A decision is, by chance, one of: the
best expected improvement of the final loss per cost over all paused trials and new configurations; the paused trial
that promises the best end; or, because a model of curves can be wrong in ways that ranks cannot, the best of a rung
advanced as in successive halving, else a child of good trials by differential evolution.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Judgement, Step, StudyView
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.decision import Decision
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array
from hpo_service.search.strategies.freeze_thaw.past import Past
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from hpo_service.search.strategies.freeze_thaw.stop_rule import stopped
from hpo_service.search.strategies.nearness import Exhausted
from hpo_service.spec.space import Constant, Dimension, SearchSpace
from hpo_service.spec.stop_when import StopWhen
from trainer.spec import Parameters


class FreezeThaw:
    """`total_examples` maps epochs to the examples at a trial's end; `recall` reads earlier studies, when needed."""

    def __init__(
        self,
        space: SearchSpace,
        total_examples: Callable[[float], int],
        settings: FreezeThawSettings = FreezeThawSettings(),
        recall: Callable[[], Past] | None = None,
        stop_when: StopWhen | None = None,
    ) -> None:
        self._space, self._cube, self._recall = space, Cube(space), recall
        self._total_examples, self._settings, self._stop_when = total_examples, settings, stop_when

    def propose(self, view: StudyView) -> Step:
        """The baseline, enqueued points, an even design, then one decision of the mixture."""
        duty = ranking.first_duties(view) or next(map(ranking.enqueued, view.standing("waiting")), None)
        if duty is not None:
            return duty
        try:
            step = self._decided(view)
        except Exhausted as exhausted:
            view = view.when_exhausted(str(exhausted))
            step = self._decided(view)
        if step is None:
            return ranking.conclude(view)
        step = ranking.remembered(step, view)
        return step if self._stop_when is None else stopped(step, view, self._stop_when)

    def _decided(self, view: StudyView) -> Step | None:
        decision = Decision(view, self._cube, self._settings, self.ends_of, self._past)
        return decision.design() or decision.by_model()

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Always pause: nothing is thrown away before the study ends."""
        trial = view.trials[trial_number]
        ranked = ranking.at_rung(view, trial.rung)
        standing = f"rank {ranked.index(trial) + 1} of {len(ranked)} at {trial.rung} examples"
        return Judgement(verdict="pause", reason=f"{standing}; every trial pauses, the next decision may resume it")

    @cached_property
    def _past(self) -> Past | None:
        """Read at the first proposal, which may take its time."""
        return None if self._recall is None else self._recall()

    @cached_property
    def epochs_at(self) -> Callable[[float], float] | float | None:
        """Epochs by the coordinate of their own dimension, or for all; None if they follow from other parameters."""
        form = self._space.forms.get("epochs")
        if form is None:
            return Parameters().epochs
        if isinstance(form, Constant):
            return float(form.value)
        if isinstance(form, Dimension) and not form.when:
            return lambda share: float(form.spread(share))
        return None

    def ends_of(self, points: Array) -> Array:
        """Examples at the end of trials at `points` [n, dimensions]."""
        epochs = self.epochs_at
        if isinstance(epochs, float):
            return np.full(len(points), self._total_examples(epochs), dtype=np.float64)
        if epochs is not None:
            shares = points[:, self._cube.names.index("epochs")]
            known = {share: self._total_examples(epochs(share)) for share in np.unique(shares).tolist()}
            return np.array([known[share] for share in shares.tolist()], dtype=np.float64)
        found = [self._cube.assignment(point) for point in points]
        longest = max((self._total_examples(each.parameters.epochs) for each in found if each), default=1)
        return np.array(
            [longest if each is None else self._total_examples(each.parameters.epochs) for each in found],
            dtype=np.float64,
        )
