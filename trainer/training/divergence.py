"""When a trial is hopeless: its loss is not finite, it exploded, or it has climbed back above where it started."""

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from trainer.common.errors import Diverged
from trainer.spec import Notice

_WINDOW_STEPS = 10
_LOOKBACK_STEPS = 40
_RISE = 1.10
_STANDARD_ERRORS = 4.0
#: a loss so many robust deviations above the median of the last losses is a spike; as little as 25 % never is
_SPIKE_DEVIATIONS = 8.0
_SPIKE_RISE = 1.25
#: losses in a row above the band, each also above the highest loss of the start: no spike, an explosion
_EXPLOSION_STEPS = 5
#: so many steps in a row with a mean above that of the start
_LONG_STEPS = 100
#: turns the median absolute deviation of a normal distribution into its standard deviation
_MAD_TO_DEVIATION = 1.4826


@dataclass
class DivergenceWatch:
    """Watches the loss of every optimizer step of one trial; its state travels in the snapshot.

    Three rules, each with what keeps it quiet on healthy noise:

    - What is not finite ends the slice at once.
    - A running band: median plus 8 robust deviations (from the median absolute deviation) of the last 50 losses, at
      least 25 % above the median. One loss above it is a spike, which is told and forgotten. Five in a row are an
      explosion, if each of them also lies above all of the first ten losses by as much. Losses above the band do not
      enter it, so an explosion cannot hide by widening it.
    - The mean of the last 10 losses is 10 % above the mean of the 10 losses forty steps earlier. Alone this fires on
      small batches on a plateau and on a curriculum that gets harder, so two more things must hold. The last mean also
      lies above the level of the trial's first 10 losses: a trial that is still better than at its start has not
      diverged. And both rises exceed 4 standard errors, estimated inside the windows: with a noisy loss a rise of
      10 % means nothing. A last mean that lies above the start like this for 100 steps in a row has diverged as well,
      however slowly it rose.
    """

    step: int = 0
    above_steps: int = 0
    first: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    band: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    _spikes: list[Notice] = field(default_factory=list, compare=False)

    def observe(self, loss: float, gradient_norm: float) -> None:
        """Take the loss of the next step before its update is applied. Raises Diverged."""
        self.step += 1
        for name, value in (("training loss", loss), ("gradient norm", gradient_norm)):
            if not math.isfinite(value):
                # JSON has no infinity: the sentence says which it was.
                values = {"loss": loss, "gradient_norm": gradient_norm}
                finite = {key: number for key, number in values.items() if math.isfinite(number)}
                raise Diverged(f"the {name} became {value}", step=self.step, values=finite)
        if len(self.first) < _WINDOW_STEPS:
            self.first.append(loss)
        self.recent.append(loss)
        del self.recent[: -(_WINDOW_STEPS + _LOOKBACK_STEPS)]
        self._compare_with_band(loss)
        if len(self.recent) == _WINDOW_STEPS + _LOOKBACK_STEPS:
            self._compare_windows(self.recent[:_WINDOW_STEPS], self.recent[-_WINDOW_STEPS:])

    def take_spikes(self) -> list[Notice]:
        """The spikes since the last call."""
        spikes, self._spikes = self._spikes, []
        return spikes

    def recent_mean(self) -> float | None:
        """Mean loss of the last 10 steps, None before the first."""
        return _mean(self.recent[-_WINDOW_STEPS:]) if self.recent else None

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain JSON."""
        return {
            "step": self.step,
            "above_steps": self.above_steps,
            "first": list(self.first),
            "recent": list(self.recent),
            "band": list(self.band),
            "outside": list(self.outside),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "DivergenceWatch":
        """The watch as it was when `state` was taken."""
        first, recent, band, outside = (
            [float(loss) for loss in state[name]] for name in ("first", "recent", "band", "outside")
        )
        return cls(int(state["step"]), int(state["above_steps"]), first, recent, band, outside)

    def _compare_with_band(self, loss: float) -> None:
        top = self._band_top()
        if top is None or loss <= top:
            self.outside.clear()
            self.band.append(loss)
            del self.band[: -(_WINDOW_STEPS + _LOOKBACK_STEPS)]
            return
        self.outside.append(loss)
        values = {"loss": loss, "band": top, "median": median(self.band)}
        if len(self.outside) == 1:
            message = f"the training loss {loss:.3f} of step {self.step} is above the band of recent losses, {top:.3f}"
            self._spikes.append(Notice(kind="loss_spike", step=self.step, values=values, message=message))
        if len(self.outside) < _EXPLOSION_STEPS:
            return
        if min(self.outside) > _SPIKE_RISE * max(self.first):
            raise Diverged(
                f"the training loss exploded to {loss:.3f}: {_EXPLOSION_STEPS} steps in a row above its start and "
                f"above the band of recent losses, {top:.3f}",
                step=self.step,
                values=values,
            )
        # A new level that is not above the start, such as a harder part of the data: the band follows it.
        self.band = list(self.outside)
        self.outside.clear()

    def _band_top(self) -> float | None:
        """The highest loss that is no spike; None before there are enough to tell."""
        if len(self.band) < _WINDOW_STEPS:
            return None
        middle = median(self.band)
        deviation = _MAD_TO_DEVIATION * median([abs(loss - middle) for loss in self.band])
        return max(middle + _SPIKE_DEVIATIONS * deviation, _SPIKE_RISE * middle)

    def _compare_windows(self, earlier: list[float], last: list[float]) -> None:
        before, now, start = _mean(earlier), _mean(last), _mean(self.first)
        values = {"loss": now, "earlier": before, "start": start}
        above = _rises(self.first, last) and now > _RISE * start
        self.above_steps = self.above_steps + 1 if above else 0
        if self.above_steps >= _LONG_STEPS:
            message = f"the training loss {now:.3f} has been above its start, {start:.3f}, for {_LONG_STEPS} steps"
            raise Diverged(message, step=self.step, values=values)
        if _rises(self.first, last) and _rises(earlier, last) and now > _RISE * before:
            raise Diverged(
                f"the training loss rose from {before:.3f} to {now:.3f} within {_LOOKBACK_STEPS} steps and is above "
                "its start",
                step=self.step,
                values=values,
            )


def divergence_notice(error: Diverged) -> Notice:
    """What the result says of a divergence."""
    return Notice(kind="divergence", step=error.step, values=error.values, message=str(error))


def _rises(before: list[float], after: list[float]) -> bool:
    error = math.sqrt((_variance(before) + _variance(after)) / _WINDOW_STEPS)
    return _mean(after) - _mean(before) > _STANDARD_ERRORS * error


def _mean(losses: list[float]) -> float:
    return math.fsum(losses) / len(losses)


def _variance(losses: list[float]) -> float:
    mean = _mean(losses)
    return math.fsum((loss - mean) ** 2 for loss in losses) / max(1, len(losses) - 1)
