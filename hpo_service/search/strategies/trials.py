"""A trial as strategies see it, and all trials of a study with what strategies ask of them most."""

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Generic, Literal, Self, TypeVar

from trainer.spec import Outcome

Key = TypeVar("Key")
TrialStanding = Literal["waiting", "running", "paused", "complete", "pruned", "failed"]
Enqueuer = Literal["", "spec", "preset", "person"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a trial of a confirmation is: a trial of the search trained again from its start, with another seed."""

    candidate: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """A trial as strategies see it.

    `sampled` are the values of what the space samples, `parameters` all that the trainer takes.
    `losses` maps nominal rungs (examples) to evaluation losses. `ladder` ends with the trial's own total.
    A running trial's `running_to` is the rung of its slice. `cost_per_example` is what a training example of this
    trial costs, evaluation included: worker seconds times devices, in a deterministic study predicted FLOPs; None
    before its first rung. `fold_losses` maps rungs to the mean losses of fixed folds of the evaluation examples, the
    same examples for every trial; empty where they are not known. `memory_bytes` is the predicted peak of a device's
    memory, and `measures` are the values of the study's other objectives, both known after the first slice. `run` is
    set in a confirmation only.
    """

    number: int
    standing: TrialStanding
    sampled: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[int, float] = field(default_factory=dict)
    ladder: tuple[int, ...] = ()
    baseline: bool = False
    outcome: Outcome | None = None
    running_to: int | None = None
    cost_per_example: float | None = None
    fold_losses: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    memory_bytes: int | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    run: Run | None = None
    enqueued_by: Enqueuer = ""
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What readers worked out from this view alone, which never changes; not for decisions to depend on."""

    @property
    def rung(self) -> int:
        """The highest rung with a loss, 0 before the first."""
        return max(self.losses, default=0)

    @property
    def next_rung(self) -> int | None:
        """The rung after the current one; None at the trial's end."""
        return next((rung for rung in self.ladder if rung > self.rung), None)


Rank = tuple[bool, float, int]


def rank(trial: TrialView, rung: int) -> Rank:
    """Sorts trials at a rung: best first, ties by number, a loss that is no number last. At rung 0 by number."""
    loss = trial.losses.get(rung, 0.0)
    return (False, loss, trial.number) if isfinite(loss) else (True, 0.0, trial.number)


class Roster(tuple[TrialView, ...]):
    """All trials of a study by number. Who stands where and who ranks where is kept, not searched for.

    Immutable; `changed` answers another one that shares what is the same.
    """

    _standing: dict[TrialStanding, list[int]]  #: numbers, sorted
    _ranked: dict[int, list[int]]  #: by rung, best first
    _paused: dict[int, list[int]]  #: paused trials by their highest rung (0: none), best first
    _baselines: list[int]
    _tried: set[Hashable]  #: what trials were begun with
    _kept: dict[str, tuple[Any, frozenset[int]]]  #: see `keep`

    @classmethod
    def of(cls, trials: Iterable[TrialView]) -> Self:
        """Of all trials of a study."""
        return cls._made((), {}, {}, {}, [], set()).changed(trials)

    @classmethod
    def _made(
        cls,
        trials: Iterable[TrialView],
        standing: dict[TrialStanding, list[int]],
        ranked: dict[int, list[int]],
        paused: dict[int, list[int]],
        baselines: list[int],
        tried: set[Hashable],
    ) -> Self:
        made = cls(trials)
        made._standing, made._ranked, made._paused = standing, ranked, paused
        made._baselines, made._tried, made._kept = baselines, tried, {}
        return made

    def changed(self, views: Iterable[TrialView]) -> Self:
        """With these in place of those with their numbers, or at the end."""
        trials = list(self)
        standing, ranked = _Lists(self._standing), _Lists(self._ranked)
        paused, baselines = _Lists(self._paused), set(self._baselines)
        begun: set[Hashable] = set()
        moved: set[int] = set()
        for new in sorted(views, key=lambda view: view.number):
            old = trials[new.number] if new.number < len(trials) else None
            if old is not None:
                _withdraw(trials, old, new, standing, ranked, paused)
                trials[new.number] = new
            elif new.number == len(trials):
                trials.append(new)
            else:
                raise ValueError(f"trial {new.number} cannot follow trial {len(trials) - 1}")
            _enter(trials, old, new, standing, ranked, paused)
            (baselines.add if new.baseline else baselines.discard)(new.number)
            if old is None or old.parameters is not new.parameters:
                begun.add(_key(new.parameters))
            if old is None or old.sampled != new.sampled:
                moved.add(new.number)
        tried = self._tried if begun <= self._tried else self._tried | begun
        made = self._made(trials, standing.lists, ranked.lists, paused.lists, sorted(baselines), tried)
        made._kept = {name: (value, outdated | moved) for name, (value, outdated) in self._kept.items()}
        return made

    def standing(self, *standings: TrialStanding) -> list[TrialView]:
        """Trials in any of the standings, by number."""
        numbers = [number for one in standings for number in self._standing.get(one, ())]
        return [self[number] for number in (sorted(numbers) if len(standings) > 1 else numbers)]

    def baselines(self) -> list[TrialView]:
        """Trials that are the baseline's, by number."""
        return [self[number] for number in self._baselines]

    def is_tried(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a trial has exactly these resolved parameters."""
        return _key(parameters) in self._tried

    def keep(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Keep what was worked out from the sampled values of all trials; not for decisions to depend on."""
        self._kept[name] = (value, frozenset())

    def kept(self, name: str) -> tuple[Any, frozenset[int]]:
        """What was kept last, and the numbers of trials that are new or have other values since; None if nothing."""
        return self._kept.get(name, (None, frozenset()))

    def ranked(self, rung: int) -> list[TrialView]:
        """All trials with a loss at the rung, best first."""
        return [self[number] for number in self._ranked.get(rung, ())]

    def place(self, trial: TrialView, rung: int) -> tuple[int, int]:
        """Where the trial ranks at a rung that it reached, from 1, and among how many."""
        numbers = self._ranked[rung]
        return bisect_left(numbers, rank(trial, rung), key=_rank_at(self, rung)) + 1, len(numbers)

    def paused_rungs(self) -> list[int]:
        """Rungs at which trials pause, the highest first; 0 stands for those without a loss."""
        return sorted((rung for rung, numbers in self._paused.items() if numbers), reverse=True)

    def paused_at(self, rung: int) -> Sequence[int]:
        """Numbers of the paused trials whose highest rung this is, best first."""
        return self._paused.get(rung, [])


def _key(value: Any) -> Hashable:  # noqa: ANN401
    """Equal exactly for what JSON writes alike; 8 and 8.0 are equal, as they are in Python."""
    if isinstance(value, Mapping):
        return frozenset((name, _key(entry)) for name, entry in value.items())
    return tuple(_key(entry) for entry in value) if isinstance(value, list | tuple) else value


class _Lists(Generic[Key]):
    """Sorted lists by key; one is copied when it is changed first."""

    def __init__(self, known: dict[Key, list[int]]) -> None:
        self.lists = dict(known)
        self._own: set[Key] = set()

    def at(self, key: Key) -> list[int]:
        """The list, to be changed."""
        if key not in self._own:
            self.lists[key] = list(self.lists.get(key, ()))
            self._own.add(key)
        return self.lists[key]


def _withdraw(
    trials: list[TrialView],
    old: TrialView,
    new: TrialView,
    standing: _Lists[TrialStanding],
    ranked: _Lists[int],
    paused: _Lists[int],
) -> None:
    """Take `old` out of every list in which it does not stay where it is."""
    if old.standing != new.standing:
        numbers = standing.at(old.standing)
        del numbers[bisect_left(numbers, old.number)]
    for rung, loss in old.losses.items():
        if new.losses.get(rung) != loss:
            _remove(trials, ranked.at(rung), old, rung)
    if old.standing == "paused":
        _remove(trials, paused.at(old.rung), old, old.rung)


def _enter(
    trials: list[TrialView],
    old: TrialView | None,
    new: TrialView,
    standing: _Lists[TrialStanding],
    ranked: _Lists[int],
    paused: _Lists[int],
) -> None:
    if old is None or old.standing != new.standing:
        insort(standing.at(new.standing), new.number)
    for rung, loss in new.losses.items():
        if old is None or old.losses.get(rung) != loss:
            insort(ranked.at(rung), new.number, key=_rank_at(trials, rung))
    if new.standing == "paused":
        insort(paused.at(new.rung), new.number, key=_rank_at(trials, new.rung))


def _remove(trials: list[TrialView], numbers: list[int], trial: TrialView, rung: int) -> None:
    del numbers[bisect_left(numbers, rank(trial, rung), key=_rank_at(trials, rung))]


def _rank_at(trials: Sequence[TrialView], rung: int) -> Callable[[int], Rank]:
    return lambda number: rank(trials[number], rung)
