"""The note on a study's page in optuna-dashboard: what is best, what paused trials are, where more is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import optuna
from optuna.trial import FrozenTrial
from optuna_dashboard import get_note, save_note

from hpo_service.best import Best, best_trial
from hpo_service.dispatcher.memory import LiveStudy
from hpo_service.domain import TERMINAL
from hpo_service.edge_words import command, sentence
from hpo_service.importances import edges

_PAUSED = (
    "**Paused trials** are shown as *Running* here; their user attribute `hpo_state` says `paused`. A paused trial "
    "waits on a rung with a snapshot of all it has learnt, costs nothing, and goes on when the search picks it again. "
    "What is still paused when the study ends becomes *Pruned*."
)
#: on the first page of a study, where the note is not
_ATTRIBUTE = ("paused trials", "are shown as Running; their attribute hpo_state says paused (see the note)")
_PAGES = (
    (
        "importances",
        "which parameters mattered, over trials at all rungs (Optuna's own figures see Complete ones only)",
    ),
    ("decisions", "every decision of the search with its numbers"),
    ("pareto", "trials that no other one beats in all objectives, paused ones too"),
    ("trials", "all trials with their losses and costs"),
)


def refresh(study: LiveStudy) -> None:
    """Write the note anew if the study's state, its best trial or its space changed since the last one."""
    if study.optuna_study_id is None:
        return
    best = best_trial([_Facts(trial) for trial in study.trials()])
    leader = None if best is None else (best.trial_number, best.loss, best.provisional)
    about = (study.state, study.message, leader, study.space)
    if about == study.noted:
        return
    shown = optuna.load_study(study_name=study.optuna_name, storage=study.storage)
    body = _body(study, best)
    if get_note(shown) != body:
        save_note(shown, body)
    if _ATTRIBUTE[0] not in shown.user_attrs:
        shown.set_user_attr(*_ATTRIBUTE)
    study.noted = about


@dataclass(frozen=True)
class _Facts:
    """A trial in the words of `best_trial`."""

    trial: FrozenTrial

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def state(self) -> str:
        return self.trial.state.name

    @property
    def value(self) -> float | None:
        values = self.trial.values
        return values[0] if values else None

    @property
    def intermediate(self) -> Mapping[int, float]:
        return self.trial.intermediate_values

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        return self.trial.user_attrs


def _body(study: LiveStudy, best: Best | None) -> str:
    message = f": {study.message}" if study.message else ""
    paragraphs = [f"**{study.name}** is {study.state}{message}.", _best(best), *_edges(study), _PAUSED]
    pages = [f"- [{page}](/v1/studies/{quote(study.name)}/{page}): {about}" for page, about in _PAGES]
    return "\n\n".join([*paragraphs, "\n".join(pages), f"On the command line: `hpo study show {study.name}`."])


def _best(best: Best | None) -> str:
    if best is None:
        return "No trial has reached a rung yet."
    where = f"after {best.examples} examples" + (", the highest rung so far" if best.provisional else "")
    found = f"**Best: trial {best.trial_number}, loss {best.loss:.5g}** {where}"
    better = best.improvement
    if better is None:
        return f"{found}."
    if better.baseline_trial == best.trial_number:
        return f"{found}. It is the baseline."
    word = "better" if better.relative >= 0 else "worse"
    return f"{found}, {abs(better.relative):.1%} {word} than the baseline (trial {better.baseline_trial})."


def _edges(study: LiveStudy) -> list[str]:
    found = edges(study.space, study.view().trials, study.resolved.ladder)
    ended = study.state in TERMINAL
    return [
        f"**Edge:** {sentence(edge)}. Widen it with: `{command(edge, study.name, study.space, ended=ended)}`"
        for edge in found
    ]
