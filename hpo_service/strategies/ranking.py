"""What all strategies share: who goes first, who ranks where, when a study is at its end."""

from collections.abc import Iterable, Iterator

from hpo_service.strategies.base import Advance, Finished, Start, Step, StudyView, TrialView, Wait


def at_rung(view: StudyView, rung: int) -> list[TrialView]:
    """All trials with a loss at the rung, best first; ties by number."""
    reached = [trial for trial in view.trials if rung in trial.losses]
    return sorted(reached, key=lambda trial: (trial.losses[rung], trial.number))


def advance(trial: TrialView, reason: str) -> Advance | None:
    """Take the trial to its next rung, None at its end."""
    rung = trial.next_rung
    return None if rung is None else Advance(trial_number=trial.number, until_examples=rung, reason=reason)


def first_duties(view: StudyView) -> Step | None:
    """The baseline goes to its end before anything else; then trials that were stopped before their first loss."""
    for trial in view.trials:
        if trial.baseline and trial.standing == "waiting":
            return Start(trial_number=trial.number, reason="the baseline comes first")
        if trial.baseline and trial.standing == "paused":
            return advance(trial, "the baseline goes to its end")
    unmeasured = (trial for trial in view.standing("paused") if not trial.losses)
    return next(_advances(unmeasured, "it was stopped before its first loss"), None)


def next_in_line(view: StudyView) -> Step | None:
    """Advance the paused trial with the lowest number."""
    return next(_advances(view.standing("paused"), "it is next in line"), None)


def start(view: StudyView) -> Step | None:
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
        paused = sorted(
            view.standing("paused"), key=lambda trial: (-trial.rung, trial.losses[trial.rung], trial.number)
        )
        step = next(_advances(paused, "nothing is trained to the end yet, and it is the best of those furthest"), None)
        if step is not None:
            return step
        return Finished(reason=f"none of {len(view.trials)} trials could be trained to its end")
    return Finished(reason=f"all {len(view.trials)} trials are decided, {len(done)} were trained to their end")


def _advances(trials: Iterable[TrialView], reason: str) -> Iterator[Advance]:
    return (step for trial in trials if (step := advance(trial, reason)) is not None)
