"""When a trial is hopeless: its loss is not finite, or it has climbed back above where it started."""

import math
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import Diverged

_WINDOW_STEPS = 10
_LOOKBACK_STEPS = 40
_RISE = 1.10
_STANDARD_ERRORS = 4.0


@dataclass
class DivergenceWatch:
    """Watches the loss of every optimizer step of one trial; its state travels in the snapshot.

    The rule: the mean of the last 10 losses is 10 % above the mean of the 10 losses forty steps earlier. Alone it
    fires on healthy noise (small batches on a plateau) and on a curriculum that gets harder, so two more things must
    hold. The last mean also lies above the level of the trial's first 10 losses: a trial that is still better than at
    its start has not diverged. And both rises exceed 4 standard errors, estimated inside the windows: with a
    noisy loss a rise of 10 % means nothing. An explosion passes all three within ten steps.
    """

    first: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)

    def observe(self, loss: float, gradient_norm: float) -> None:
        """Take the loss of a step before its update is applied. Raises Diverged."""
        if not math.isfinite(loss):
            raise Diverged(f"the training loss became {loss}")
        if not math.isfinite(gradient_norm):
            raise Diverged(f"the gradient norm became {gradient_norm}")
        if len(self.first) < _WINDOW_STEPS:
            self.first.append(loss)
        self.recent.append(loss)
        del self.recent[: -(_WINDOW_STEPS + _LOOKBACK_STEPS)]
        if len(self.recent) == _WINDOW_STEPS + _LOOKBACK_STEPS:
            self._compare(self.recent[:_WINDOW_STEPS], self.recent[-_WINDOW_STEPS:])

    def recent_mean(self) -> float | None:
        """Mean loss of the last 10 steps, None before the first."""
        return _mean(self.recent[-_WINDOW_STEPS:]) if self.recent else None

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain JSON."""
        return {"first": list(self.first), "recent": list(self.recent)}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "DivergenceWatch":
        """The watch as it was when `state` was taken."""
        return cls([float(loss) for loss in state["first"]], [float(loss) for loss in state["recent"]])

    def _compare(self, earlier: list[float], last: list[float]) -> None:
        rises = all(_rises(before, last) for before in (earlier, self.first))
        if rises and _mean(last) > _RISE * _mean(earlier):
            raise Diverged(
                f"the training loss rose from {_mean(earlier):.3f} to {_mean(last):.3f} within "
                f"{_LOOKBACK_STEPS} steps and is above its start"
            )


def _rises(before: list[float], after: list[float]) -> bool:
    error = math.sqrt((_variance(before) + _variance(after)) / _WINDOW_STEPS)
    return _mean(after) - _mean(before) > _STANDARD_ERRORS * error


def _mean(losses: list[float]) -> float:
    return math.fsum(losses) / len(losses)


def _variance(losses: list[float]) -> float:
    mean = _mean(losses)
    return math.fsum((loss - mean) ** 2 for loss in losses) / max(1, len(losses) - 1)
