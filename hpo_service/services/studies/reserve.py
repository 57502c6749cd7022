"""What a capped study keeps back, so that the trial that leads can be trained to its end."""

from hpo_service.core.study_rules import TERMINAL, Spent
from hpo_service.services.studies.schemas import ReserveDocument
from hpo_service.services.studies.summaries import Summary
from hpo_service.storage.tables import Study

_CAPS = ("max_examples", "max_gpu_hours", "max_cost_usd", "max_wall_hours")


def reserve_of(study: Study, summary: Summary, spent: Spent) -> ReserveDocument | None:
    """None without a cap that it counts against, and once there is nothing to keep it for."""
    budget = study.resolved["budget"]
    if study.state in TERMINAL or not study.resolved["ladder"] or all(budget.get(cap) is None for cap in _CAPS):
        return None
    best, leader = summary.best, summary.leader
    searched = leader is not None and not leader.baseline
    if best is not None and not best.provisional and not (searched and leader and leader.ahead_of_best):
        return None
    examples = leader.left_examples if searched and leader else max(study.resolved["ladder"])
    if examples == 0:
        return None
    per_example = spent.seconds / spent.examples if spent.examples else None
    return ReserveDocument(
        trial_number=leader.trial_number if searched and leader else None,
        examples=examples,
        gpu_hours=None if per_example is None else examples * per_example / 3600,
        usd=spent.usd / spent.examples * examples if spent.usd else None,
    )
