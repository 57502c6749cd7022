"""What all strategies share: who goes first, who ranks where, when a study is at its end."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import isfinite

from hpo_service.search.leader import ahead_of, leader
from hpo_service.search.strategies.base import Advance, Finished, Start, Step, StudyView, TrialView, Wait
from hpo_service.search.strategies.trials import Roster, rank

#: so many trials, at most, are trained to their end because they lead when all is decided
_MOST_FINISHED = 3
#: under this key the study remembers their numbers
_FINISHED = "finished_leaders"
_ENQUEUED = {
    "spec": "the study's spec enqueues it",
    "preset": "the preset knows it as good",
    "person": "a person enqueued it",
    "": "it was enqueued",
}
FINISH = "finish"
"""The rule behind a step that trains a leader on because all else is decided."""
CLOSING = "closing"
"""Under this key the study remembers why its search is over."""


def at_rung(view: StudyView, rung: int) -> list[TrialView]:
    """All trials with a loss at the rung, best first; ties by number."""
    return view.trials.ranked(rung) if isinstance(view.trials, Roster) else ranked(view.trials, rung)


def ranked(trials: Iterable[TrialView], rung: int) -> list[TrialView]:
    """Those with a loss at the rung, best first; ties by number, a loss that is no number last."""
    return sorted((trial for trial in trials if rung in trial.losses), key=lambda trial: rank(trial, rung))


def advance(trial: TrialView, reason: str) -> Advance | None:
    """Take the trial to its next rung, None at its end."""
    rung = trial.next_rung
    return None if rung is None else Advance(trial_number=trial.number, until_examples=rung, reason=reason)


def best_of_a_rung(trials: Iterable[TrialView], reduction_factor: int, prefix: str = "") -> Advance | None:
    """Advance a paused trial that is among the best one in `reduction_factor` of its rung, the highest rung first."""
    peers = list(trials)
    paused = {trial.number: trial for trial in peers if trial.standing == "paused" and trial.losses}
    for rung in sorted({trial.rung for trial in paused.values()}, reverse=True):
        order = ranked(peers, rung)
        for place, trial in enumerate(order[: len(order) // reduction_factor], start=1):
            if trial.number in paused and trial.rung == rung:
                step = advance(trial, prefix + _place(place, len(order), rung, reduction_factor))
                if step is not None:
                    return step
    return None


def best_of_the_study(roster: Roster, reduction_factor: int) -> Advance | None:
    """The same of all trials of a study, without looking at each."""
    for rung in filter(None, roster.paused_rungs()):
        for number in roster.paused_at(rung):
            place, count = roster.place(roster[number], rung)
            if place > count // reduction_factor:
                break
            step = advance(roster[number], _place(place, count, rung, reduction_factor))
            if step is not None:
                return step
    return None


def standing_in_study(roster: Roster, trial: TrialView, reduction_factor: int) -> str:
    """Where a trial stands among all of the study at its rung, as a sentence."""
    return _place(*roster.place(trial, trial.rung), trial.rung, reduction_factor)


def standing(trials: Iterable[TrialView], trial: TrialView, reduction_factor: int) -> str:
    """Where a trial stands among its peers at its rung, as a sentence."""
    order = ranked(trials, trial.rung)
    return _place(order.index(trial) + 1, len(order), trial.rung, reduction_factor)


def _place(place: int, count: int, rung: int, reduction_factor: int) -> str:
    advancing = count // reduction_factor
    rule = f"the best {advancing} advance" if advancing else f"none advances before {reduction_factor} are there"
    return f"rank {place} of {count} at {rung} examples; {rule}"


def first_duties(view: StudyView) -> Step | None:
    """The baseline goes to its end before anything else; then trials that were stopped before their first loss."""
    kept = isinstance(view.trials, Roster)
    for trial in view.roster.baselines() if kept else (trial for trial in view.trials if trial.baseline):
        if trial.standing == "waiting":
            return Start(trial_number=trial.number, reason="the baseline comes first")
        if trial.standing == "paused":
            return advance(trial, "the baseline goes to its end")
    paused = [view.trials[number] for number in view.roster.paused_at(0)] if kept else view.standing("paused")
    unmeasured = (trial for trial in paused if not trial.losses)
    return next(_advances(unmeasured, "it was stopped before its first loss"), None)


def next_in_line(view: StudyView) -> Step | None:
    """Advance the paused trial with the lowest number."""
    return next(_advances(view.standing("paused"), "it is next in line"), None)


def enqueued(trial: TrialView) -> Start:
    """Begin a waiting trial, with who enqueued it as the reason."""
    return Start(trial_number=trial.number, reason=_ENQUEUED[trial.enqueued_by])


def start(view: StudyView) -> Start | None:
    """Begin an enqueued trial, else a new one while there may be more."""
    for trial in view.standing("waiting"):
        return enqueued(trial)
    if len(view.trials) < view.max_trials:
        return Start(trial_number=None, reason=f"trial {len(view.trials) + 1} of {view.max_trials}")
    return None


def conclude(view: StudyView) -> Step:
    """Wait for what runs; then train those to their end that lead; then the study is finished.

    At first the leader, until a searched trial is complete; then, up to `_MOST_FINISHED` in all, paused trials that are
    ahead of the best complete one at the highest rung that both reached. Otherwise the study would answer with a worse
    trial than it knows of.
    """
    if view.standing("running"):
        return Wait()
    step = _finish_a_leader(view)
    if step is not None:
        return step
    if view.closing:
        return Finished(reason=view.closing)
    because = f"{view.exhausted}; " if view.exhausted else ""
    if not any(not trial.baseline for trial in view.standing("complete")):
        return Finished(reason=f"{because}none of {len(view.trials)} trials could be trained to its end")
    complete = len(view.standing("complete"))
    ended = "was trained to its end" if complete == 1 else "were trained to their end"
    return Finished(reason=f"{because}all {len(view.trials)} trials are decided, {complete} {ended}")


def best_complete(trials: Iterable[TrialView]) -> TrialView | None:
    """The searched one with the lowest loss among complete trials; None if none has a finite loss."""
    done = [trial for trial in trials if not trial.baseline and isfinite(trial.losses[trial.rung])]
    return min(done, key=lambda trial: (trial.losses[trial.rung], trial.number), default=None)


def unfinished_leaders(view: StudyView) -> tuple[list[TrialView], TrialView | None]:
    """Paused trials that lead, those first that are furthest ahead; and the best complete searched trial, if any.

    With one, they are ahead of it at the highest rung that both reached. Before that, all with a loss, the leader
    first, then those that were trained furthest.
    """
    paused = [trial for trial in view.standing("paused") if not trial.baseline]
    best = best_complete(view.standing("complete"))
    if best is not None:
        ahead = ahead_of(best.losses, [(trial.number, trial.losses) for trial in paused])
        return [view.trials[number] for number in ahead], best
    first = leader({trial.number: trial.losses for trial in paused})
    rest = sorted(paused, key=lambda trial: (-trial.rung, rank(trial, trial.rung)))
    return [*([] if first is None else [view.trials[first]]), *rest], None


def _finish_a_leader(view: StudyView) -> Advance | None:
    begun = [number for number in view.memory.get(_FINISHED, ()) if number < len(view.trials)]
    order, best = unfinished_leaders(view)
    about = "no searched trial is trained to its end yet, and it leads"
    if best is not None:
        order = [trial for trial in order if trial.number in begun or len(begun) < _MOST_FINISHED]
        about = f"it is ahead of trial {best.number}, the best that is complete"
    step = next(_advances(order, about), None)
    if step is None:
        return None
    numbers = begun if step.trial_number in begun else [*begun, step.trial_number]
    memory = {**view.memory, _FINISHED: numbers} | ({CLOSING: view.closing} if view.closing else {})
    return replace(step, numbers={"rule": FINISH}, memory=memory)


def what_the_leader_lacked(view: StudyView) -> str:
    """A clause on the trial that a study which ends now leaves unfinished though it leads; empty if there is none."""
    order, best = unfinished_leaders(view)
    first = next((trial for trial in order if trial.losses), None)
    if first is None:
        return ""
    total = first.ladder[-1]
    led = "led" if best is None else f"was ahead of trial {best.number}"
    together = "by its objectives together, " if len(view.objectives) > 1 else ""
    return f"{together}trial {first.number} {led} and lacked {total - first.rung} of {total} examples"


def remembered(step: Step, view: StudyView) -> Step:
    """The step with what `conclude` wants to be remembered; for strategies that replace the study's memory."""
    if not isinstance(step, Advance | Start) or step.memory is None or _FINISHED not in view.memory:
        return step
    return replace(step, memory={**step.memory, _FINISHED: view.memory[_FINISHED]})


def _advances(trials: Iterable[TrialView], reason: str) -> Iterator[Advance]:
    return (step for trial in trials if (step := advance(trial, reason)) is not None)
