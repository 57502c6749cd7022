"""The note on a study's page in optuna-dashboard: what is best, what paused trials are, where more is told."""

import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import optuna
from optuna_dashboard import get_note, save_note

from hpo_service.core.study_rules import TERMINAL
from hpo_service.dispatcher.lifecycle.confirmation_notes import confirmation_body, finalists
from hpo_service.dispatcher.lifecycle.trial_notes import cost
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.trial_facts import TrialFacts
from hpo_service.formatting.comparison import confirmed, gain
from hpo_service.formatting.range_edges import command, sentence
from hpo_service.formatting.values import after_more
from hpo_service.search.best import Best, best_trial, lead_over, leading
from hpo_service.search.importances import edges
from hpo_service.search.strategies.base import TrialView
from hpo_service.spec.confirmation import CONFIRMATION_SUFFIX

_PAUSED = (
    "**Paused trials** are shown as *Running* here; their user attribute `hpo_state` says `paused`. A paused trial "
    "waits on a rung with a snapshot of all it has learnt, costs nothing, and goes on when the search picks it again. "
    "What is still paused when the study ends becomes *Pruned*."
)
#: on the first page of a study, where the note is not
_ATTRIBUTE = ("paused trials", "are shown as Running; their attribute hpo_state says paused (see the note)")
#: of the paused trials, so many are named, the furthest first
_MOST_NAMED = 10
_PAGES = (
    ("report", "the study as one document"),
    (
        "importances",
        "which parameters mattered, over trials at all rungs",
    ),
    ("decisions", "every decision of the search with its numbers"),
    ("pareto", "trials that no other one beats in all objectives, paused ones too"),
    ("trials", "all trials with their losses and costs"),
)
#: From so many trials on, looking for the best at every result would take longer than all else.
_MANY_TRIALS = 50
_PAUSE_SECONDS_A_TRIAL = 0.004
_LONGEST_PAUSE_SECONDS = 20.0


def refresh_all(studies: Mapping[int, LiveStudy]) -> None:
    """Write the notes of studies that the open transaction changes, and those that are due since an earlier one."""
    for study in studies.values():
        if study.optuna_study_id is not None and (study.note_due or study.storage.has_changes()):
            _refresh(study, None if study.child_id is None else studies.get(study.child_id))


def _refresh(study: LiveStudy, child: LiveStudy | None) -> None:
    """Write the note anew if the study's state, its best or paused trials or its space changed since the last one.

    Of a study with many trials these are looked for every 0.2 to 20 seconds, and whenever its state changes.
    """
    count = study.trial_count()
    pause_seconds = min(_LONGEST_PAUSE_SECONDS, _PAUSE_SECONDS_A_TRIAL * count) if count >= _MANY_TRIALS else 0.0
    same = study.noted[:2] == (study.state, study.message)
    study.note_due = same and time.monotonic() < study.noted_at + pause_seconds
    if study.note_due:
        return
    study.noted_at = time.monotonic()
    facts = [TrialFacts(trial) for trial in study.trials()]
    best = best_trial(facts, finalists(child))
    found = [_best(best), *_leader(facts, best)]
    plan = study.resolved.confirmation
    runs = sum(trial.state.is_finished() for trial in study.trials()) if plan else 0
    paused = _paused(study)
    about = (study.state, study.message, found, study.space, study.child_id, runs, paused)
    if about == study.noted:
        return
    shown = optuna.load_study(study_name=study.optuna_name, storage=study.storage)
    body = _body(study, found, paused) if plan is None else confirmation_body(study, plan)
    if get_note(shown) != body:
        save_note(shown, body)
    if plan is None and _ATTRIBUTE[0] not in shown.user_attrs:
        shown.set_user_attr(*_ATTRIBUTE)
    study.noted = about


def _paused(study: LiveStudy) -> str:
    """Which trials are paused, the furthest and of them the best first, and where they are seen live."""
    roster = study.roster()
    trials = [roster[number] for rung in roster.paused_rungs() for number in roster.paused_at(rung)]
    live = f"[Live page](/studies/{quote(study.name)})"
    if not trials:
        return f"{live}: curves, slices and buttons."
    named = [f"trial {trial.number} ({_standing(trial)})" for trial in trials[:_MOST_NAMED]]
    more = f" and {len(trials) - _MOST_NAMED} more" if len(trials) > _MOST_NAMED else ""
    return f"**Paused**, shown as *Running* here: {', '.join(named)}{more}. {live}: curves, slices and buttons."


def _standing(trial: TrialView) -> str:
    return f"loss {trial.losses[trial.rung]:.5g} after {trial.rung} examples" if trial.rung else "no loss yet"


def _body(study: LiveStudy, best: list[str], paused: str) -> str:
    message = f": {study.message}" if study.message else ""
    paragraphs = [
        paused,
        f"**{study.name}** is {study.state}{message}.",
        *best,
        f"Spent so far: {cost(study.spent.usd, study.spent.seconds, study.spent.examples)}.",
        *_confirmed(study),
        *_edges(study),
        _PAUSED,
    ]
    pages = [f"- [{page}](/v1/studies/{quote(study.name)}/{page}): {about}" for page, about in _PAGES]
    if study.mlflow_url is not None:
        pages.append(f"- [MLflow]({study.mlflow_url}): a run of this name, with one nested in it for each trial")
    return "\n\n".join([*paragraphs, "\n".join(pages), f"On the command line: `hpo study show {study.name}`."])


def _best(best: Best | None) -> str:
    if best is None:
        return "No trial has reached a rung yet."
    where = f"after {best.examples} examples" + (
        ", provisional: it leads, and no searched trial has reached its end" if best.provisional else ""
    )
    found = f"**Best: trial {best.trial_number}, loss {best.loss:.4f}** {where}"
    if best.confirmed is not None:
        mean = confirmed(best.confirmed.mean, best.confirmed.spread, best.confirmed.seeds)
        found = f"**Best: trial {best.trial_number}, {mean}**"
    better = best.improvement
    if better is None:
        return f"{found}."
    if better.baseline_trial == best.trial_number:
        return f"{found}. It is the baseline."
    against = gain(
        better.relative, better.loss, better.baseline_loss, better.examples, better.baseline_examples, better.seeds
    )
    return f"{found}, {against}."


def _leader(trials: Sequence[TrialFacts], best: Best | None) -> list[str]:
    """The trial that is ahead of all others, where that is not the best one."""
    first = leading(trials)
    lead = None if first is None or best is None else lead_over(first, best, trials)
    if first is None or best is None or lead is None or not lead.is_ahead:
        return []
    return [
        f"**Leader: trial {first.number}**, {lead.loss:.5g} after {lead.examples} examples, where trial "
        f"{best.trial_number} had {lead.other_loss:.5g}{after_more(lead.examples, lead.other_examples)}."
    ]


def _confirmed(study: LiveStudy) -> list[str]:
    """Where the runs with new seeds are."""
    if study.searching:
        return []
    page = f"/v1/studies/{quote(study.name)}/confirmation"
    return [
        f"Its best trials are **confirmed** with new seeds in the study `{study.optuna_name}{CONFIRMATION_SUFFIX}`: "
        f"[what they say of the best]({page})."
    ]


def _edges(study: LiveStudy) -> list[str]:
    found = edges(study.space, study.view().trials, study.resolved.ladder)
    ended = study.state in TERMINAL
    return [
        f"**Edge:** {sentence(edge)}. Widen it with: `{command(edge, study.name, study.space, ended=ended)}`"
        for edge in found
    ]
