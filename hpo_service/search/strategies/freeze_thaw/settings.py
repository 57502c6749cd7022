"""The constants of freeze-thaw search. `python -m benchmarks.search` measures them."""

from dataclasses import dataclass, field

from hpo_service.search.strategies.freeze_thaw.curves import Squash


@dataclass(frozen=True, kw_only=True)
class FreezeThawSettings:
    """What was tuned, on the tasks that `benchmarks/search` names as development tasks.

    Shares are probabilities that a decision follows the rule; what remains takes the best expected improvement.
    """

    squash: Squash = field(default_factory=lambda: Squash(quantile=0.5, width=0.3))
    design_points: int = 8  #: evenly spread configurations before the model decides, or one a slot
    advance_share: float = 0.3  #: a mixture rule: advance the best of a rung, else evolve, else draw
    advance_one_in: int = 4  #: the best of so many at a rung advance
    evolve_share: float = 0.4  #: of the mixture's decisions that advance nothing: differential evolution
    draw_share: float = 0.1  #: of the same: an even draw
    exploit_share: float = 0.1  #: resume the paused trial with the best predicted end
    most_observations: int = 260  #: in the Gaussian process
    refit_growth: float = 1.3  #: hyperparameters are fitted anew whenever the trials grew by this factor
    global_candidates: int = 150
    local_parents: int = 5
    local_candidates: int = 12  #: a parent and scale
    local_scales: tuple[float, ...] = (0.05, 0.15)
    doubt_share: float = 0.25  #: decide as if there were no past, where one is trusted
    remembered_candidates: int = 60  #: the best of earlier studies, where they are trusted
    refined_candidates: int = 8  #: the best candidates are moved a little further
    refinements: int = 2  #: so often
    resume_cost: float = 0.05  #: of any slice, in full trials: start-up, and a preference for less work
