"""Which trial won, what it gained over the baseline, and what was not trained because others could not win."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hpo_service.search.leader import Lead, compare, leader


class TrialFacts(Protocol):
    """A trial as Optuna's tables know it. `intermediate` maps rungs (examples) to losses."""

    @property
    def number(self) -> int:
        """Counts from 0 within the study."""

    @property
    def state(self) -> str:
        """Optuna's: WAITING, RUNNING, COMPLETE, PRUNED, FAIL."""

    @property
    def value(self) -> float | None:
        """The final loss."""

    @property
    def intermediate(self) -> Mapping[int, float]:
        """The loss at every rung that was reached."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All that the trainer was given; empty before the trial begins."""

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """What the dispatcher wrote: baseline, hpo_state, total_examples, ..."""


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """A trial against the baseline: the one comparison of a study, from which all that is said of it is made.

    In the search (`seeds` 0) both losses are at the highest rung that both have. Confirmed, they are means over the
    new seeds that both have, each at its own end, so `examples` and `baseline_examples` may differ. `relative` is
    positive where the trial is better.
    """

    baseline_trial: int
    examples: int
    baseline_examples: int
    baseline_loss: float
    loss: float
    relative: float
    seeds: int = 0

    @property
    def difference(self) -> float:
        """The trial's loss minus the baseline's."""
        return self.loss - self.baseline_loss


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What a trial reached when it was trained again, with `seeds` new seeds.

    `mean` is its loss and `spread` the standard deviation between seeds (None: one seed). The baseline may have fewer:
    over the `shared_seeds` that both have, `shared_mean` is ours and `baseline_mean` the baseline's, `difference` ours
    minus the baseline's, and `half_width` that of its interval. None where there is nothing to compare with.
    """

    trial_number: int
    mean: float
    spread: float | None
    seeds: int
    test_loss: float | None = None
    baseline_number: int | None = None
    shared_seeds: int = 0
    shared_mean: float | None = None
    baseline_mean: float | None = None
    difference: float | None = None
    half_width: float | None = None


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The last loss of a trial in the search, after so many examples."""

    loss: float
    examples: int


@dataclass(frozen=True, kw_only=True)
class Best:
    """The trial that one would use now. `provisional`: no searched trial has reached its end, so it is the leader.

    With `confirmed`, `loss` is the mean over new seeds, and `searched` what the search saw; else `loss` is that, in
    which luck has a part.
    """

    trial_number: int
    loss: float
    examples: int
    provisional: bool
    parameters: Mapping[str, Any]
    improvement: Improvement | None
    confirmed: Confirmed | None = None
    searched: Searched | None = None


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Examples that trials which were pruned or are paused did not see; `share` of all trials trained to their end."""

    examples: int
    share: float


def best_trial(
    trials: Sequence[TrialFacts], confirmed: Sequence[Confirmed] = (), contenders: Collection[int] | None = None
) -> Best | None:
    """Lowest confirmed mean, else lowest loss of searched trials that were trained to their end, else the leader.

    Of the confirmed, those count that have the most seeds: the others dropped out. None before the first rung.
    `contenders` as in `leading`.
    """
    if confirmed:
        return _best_confirmed(trials, confirmed)
    complete = [
        (trial.value, trial.number, trial)
        for trial in trials
        if trial.state == "COMPLETE" and not _is_baseline(trial)
        if trial.value is not None and math.isfinite(trial.value)
    ]
    if complete:
        loss, _, winner = min(complete, key=lambda entry: entry[:2])
        return _best(winner, loss, max(winner.intermediate, default=_total(winner)), provisional=False, trials=trials)
    first = leading(trials, contenders)
    if first is None:
        return None
    rung = max(finite_losses(first))
    return _best(first, first.intermediate[rung], rung, provisional=True, trials=trials)


def leading(trials: Sequence[TrialFacts], contenders: Collection[int] | None = None) -> TrialFacts | None:
    """The leader of a study; None before the first rung. What failed does not lead.

    Where not all trials are here, `contenders` are those that are the best of all at their own highest rung.
    """
    alive = {
        trial.number: trial
        for trial in trials
        if trial.state != "FAIL" and (contenders is None or trial.number in contenders)
    }
    number = leader({number: trial.intermediate for number, trial in alive.items()})
    return None if number is None else alive[number]


def lead_over(first: TrialFacts, best: Best, trials: Sequence[TrialFacts]) -> Lead | None:
    """By how much the leader is ahead of the best trial; None if it is that trial or they have no rung in common."""
    if first.number == best.trial_number:
        return None
    other = next(trial for trial in trials if trial.number == best.trial_number)
    return compare(first.intermediate, other.intermediate)


def judged(number: int, trials: Sequence[TrialFacts], confirmed: Sequence[Confirmed] = ()) -> Best | None:
    """The trial with this number, as if it had won. None before its first rung, and if it failed."""
    known = [one for one in confirmed if one.trial_number == number]
    if known:
        return _best_confirmed(trials, known)
    trial = next((trial for trial in trials if trial.number == number and trial.state != "FAIL"), None)
    if trial is None or not finite_losses(trial):
        return None
    rung = max(finite_losses(trial))
    if trial.state == "COMPLETE" and trial.value is not None and math.isfinite(trial.value):
        return _best(trial, trial.value, rung, provisional=False, trials=trials)
    return _best(trial, trial.intermediate[rung], rung, provisional=True, trials=trials)


def ranking(trials: Sequence[TrialFacts], count: int) -> list[Best]:
    """The best of the search, then the best without it, and so on."""
    rest, ranked = list(trials), list[Best]()
    while len(ranked) < count and (found := best_trial(rest)) is not None:
        ranked.append(found)
        rest = [trial for trial in rest if trial.number != found.trial_number]
    return ranked


def savings(trials: Sequence[TrialFacts]) -> Savings:
    """What stopping early has saved so far."""
    started = [trial for trial in trials if trial.state not in ("WAITING", "FAIL") and _total(trial) > 0]
    planned = sum(_total(trial) for trial in started)
    left = sum(max(0, _total(trial) - max(trial.intermediate, default=0)) for trial in started if _stopped(trial))
    return Savings(examples=left, share=left / planned if planned else 0.0)


def _best_confirmed(trials: Sequence[TrialFacts], confirmed: Sequence[Confirmed]) -> Best | None:
    most = max(one.seeds for one in confirmed)
    won = min((one for one in confirmed if one.seeds == most), key=lambda one: (one.mean, one.trial_number))
    winner = next((trial for trial in trials if trial.number == won.trial_number), None)
    if winner is None:
        return None
    return Best(
        trial_number=winner.number,
        loss=won.mean,
        examples=_total(winner),
        provisional=False,
        parameters=dict(winner.parameters),
        improvement=_confirmed_improvement(winner, won, trials),
        confirmed=won,
        searched=_searched(winner),
    )


def _confirmed_improvement(winner: TrialFacts, won: Confirmed, trials: Sequence[TrialFacts]) -> Improvement | None:
    baseline = next((trial for trial in trials if trial.number == won.baseline_number), None)
    if baseline is None or won.shared_mean is None or not won.baseline_mean:
        return None
    return Improvement(
        baseline_trial=baseline.number,
        examples=_total(winner),
        baseline_examples=_total(baseline),
        baseline_loss=won.baseline_mean,
        loss=won.shared_mean,
        relative=(won.baseline_mean - won.shared_mean) / won.baseline_mean,
        seeds=won.shared_seeds,
    )


def _searched(trial: TrialFacts) -> Searched | None:
    known = finite_losses(trial)
    return Searched(loss=known[max(known)], examples=max(known)) if known else None


def _best(winner: TrialFacts, loss: float, examples: int, *, provisional: bool, trials: Sequence[TrialFacts]) -> Best:
    return Best(
        trial_number=winner.number,
        loss=loss,
        examples=examples,
        provisional=provisional,
        parameters=dict(winner.parameters),
        improvement=_improvement(winner, trials),
    )


def _improvement(winner: TrialFacts, trials: Sequence[TrialFacts]) -> Improvement | None:
    baseline = next((trial for trial in trials if _is_baseline(trial)), None)
    if baseline is None:
        return None
    theirs, ours = finite_losses(baseline), finite_losses(winner)
    common = theirs.keys() & ours.keys()
    if not common or theirs[max(common)] == 0:
        return None
    rung = max(common)
    return Improvement(
        baseline_trial=baseline.number,
        examples=rung,
        baseline_examples=rung,
        baseline_loss=theirs[rung],
        loss=ours[rung],
        relative=(theirs[rung] - ours[rung]) / theirs[rung],
    )


def _is_baseline(trial: TrialFacts) -> bool:
    return trial.user_attrs.get("baseline") is True


def finite_losses(trial: TrialFacts) -> dict[int, float]:
    """Loss by rung, without those that are no numbers."""
    return {rung: loss for rung, loss in trial.intermediate.items() if math.isfinite(loss)}


def _total(trial: TrialFacts) -> int:
    return int(trial.user_attrs.get("total_examples", 0))


def _stopped(trial: TrialFacts) -> bool:
    paused = trial.state == "RUNNING" and trial.user_attrs.get("hpo_state") == "paused"
    return trial.state == "PRUNED" or paused
