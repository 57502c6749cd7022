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
    best = summary.best
    first = None if summary.leader is None or summary.leader.baseline else summary.leader
    if best is not None and not best.provisional and (first is None or first.ahead_of_best is None):
        return None
    examples = max(study.resolved["ladder"]) if first is None else first.left_examples
    if examples == 0:
        return None
    per_example = spent.seconds / spent.examples if spent.examples else None
    return ReserveDocument(
        trial_number=None if first is None else first.trial_number,
        examples=examples,
        gpu_hours=None if per_example is None else examples * per_example / 3600,
        usd=spent.usd / spent.examples * examples if spent.usd else None,
    )
