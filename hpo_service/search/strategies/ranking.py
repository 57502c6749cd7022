"""What all strategies share: who goes first, who ranks where, when a study is at its end."""

from collections.abc import Iterable, Iterator

from hpo_service.search.strategies.base import Advance, Finished, Start, Step, StudyView, TrialView, Wait
from hpo_service.search.strategies.trials import Roster, rank


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


def start(view: StudyView) -> Start | None:
    """Begin an enqueued trial, else a new one while there may be more."""
    for trial in view.standing("waiting"):
        return Start(trial_number=trial.number, reason="it was enqueued")
    if len(view.trials) < view.max_trials:
        return Start(trial_number=None, reason=f"trial {len(view.trials) + 1} of {view.max_trials}")
    return None


def conclude(view: StudyView) -> Step:
    """Wait for what runs; else make sure that one searched trial is trained to its end; else the study is finished."""
    if view.standing("running"):
        return Wait()
    done = [trial for trial in view.standing("complete") if not trial.baseline]
    if not done:
        paused = sorted(view.standing("paused"), key=lambda trial: (-trial.rung, rank(trial, trial.rung)))
        step = next(_advances(paused, "nothing is trained to the end yet, and it is the best of those furthest"), None)
        if step is not None:
            return step
        return Finished(reason=f"none of {len(view.trials)} trials could be trained to its end")
    complete = len(view.standing("complete"))
    ended = "was trained to its end" if complete == 1 else "were trained to their end"
    return Finished(reason=f"all {len(view.trials)} trials are decided, {complete} {ended}")


def _advances(trials: Iterable[TrialView], reason: str) -> Iterator[Advance]:
    return (step for trial in trials if (step := advance(trial, reason)) is not None)
