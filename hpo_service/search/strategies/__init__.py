"""Strategies: one file each. `build` picks the one that a study asks for."""

from functools import partial

from hpo_service.search.strategies.asha import Asha
from hpo_service.search.strategies.base import Strategy
from hpo_service.search.strategies.confirm import Confirm
from hpo_service.search.strategies.freeze_thaw import FreezeThaw
from hpo_service.search.strategies.freeze_thaw.recall import recall
from hpo_service.search.strategies.hyperband import Hyperband
from hpo_service.search.strategies.median import Median
from hpo_service.search.strategies.none import NoPruning
from hpo_service.search.strategies.successive_halving import SuccessiveHalving
from hpo_service.spec import ResolvedStudy
from trainer.data.rows import total_examples

__all__ = ["Asha", "Confirm", "FreezeThaw", "Hyperband", "Median", "NoPruning", "SuccessiveHalving", "build"]


def build(resolved: ResolvedStudy) -> Strategy:
    """The strategy of a study."""
    search = resolved.search
    if resolved.confirmation is not None:
        return Confirm(resolved.confirmation)
    match search.strategy:
        case "freeze_thaw":
            ends = partial(total_examples, resolved.train_rows)
            space = resolved.search_space()
            return FreezeThaw(space, ends, recall=partial(recall, space, resolved.past), stop_when=search.stop_when)
        case "asha":
            return Asha(search.reduction_factor)
        case "successive_halving":
            return SuccessiveHalving(search.reduction_factor)
        case "hyperband":
            return Hyperband(search.reduction_factor)
        case "median":
            return Median(search.startup_trials)
        case "none":
            return NoPruning()
