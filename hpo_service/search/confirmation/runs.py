"""A run of a confirmation, read from what is recorded of its trial. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpo_service.search.confirmation.statistics import RunResult
from trainer.spec import Outcome

RunState = Literal["running", "complete", "failed", "stopped"]
"""`stopped`: the confirmation ended before the run did, which says nothing of its candidate."""

_STATES: dict[str, RunState] = {"complete": "complete", "pruned": "failed", "fail": "failed", "failed": "failed"}


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run; `trial_number` counts within the confirmation.

    `flops` of its training are computed, its worker `seconds` measured. All runs take as many devices.
    """

    trial_number: int
    candidate: int
    seed: int
    state: RunState
    loss: float | None = None
    folds: tuple[float, ...] = ()
    test_loss: float | None = None
    flops: float | None = None
    seconds: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it says something of its candidate."""
        return self.state in ("complete", "failed")

    @property
    def result(self) -> RunResult | None:
        """None before it is complete, and if it failed."""
        if self.state != "complete" or self.loss is None:
            return None
        return RunResult(candidate=self.candidate, seed=self.seed, loss=self.loss, folds=self.folds)


def run_facts(
    number: int,
    state: str,
    attrs: Mapping[str, Any],
    losses: Mapping[int, float],
    folds: Mapping[int, tuple[float, ...]],
) -> RunFacts:
    """Of the trial with this number; `state` is Optuna's or a strategy's word, losses and folds are by rung."""
    end = max(losses, default=0)
    known = _STATES.get(state.lower(), "running")
    if known == "failed" and attrs.get("outcome") == Outcome.PREEMPTED:
        known = "stopped"
    complete = known == "complete"
    return RunFacts(
        trial_number=number,
        candidate=attrs["candidate"],
        seed=attrs["seed"],
        state=known,
        loss=losses.get(end) if complete else None,
        folds=folds.get(end, ()),
        test_loss=attrs.get("test_loss"),
        flops=_flops(attrs) if complete else None,
        seconds=attrs.get("seconds") if complete else None,
    )


def _flops(attrs: Mapping[str, Any]) -> float | None:
    per_example = attrs.get("flops_per_example")
    return None if per_example is None else float(per_example) * int(attrs["total_examples"])
