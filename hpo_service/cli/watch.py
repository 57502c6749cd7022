"""A study as it happens: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpo_service.cli.confirmation import sentence_of
from hpo_service.cli.follow import Follower, following, newest_trials, patient_study
from hpo_service.cli.forecast import forecast_sentence
from hpo_service.cli.output import make_table, say
from hpo_service.cli.views import (
    TRIAL_COLUMNS,
    best_sentence,
    edge_warnings,
    saved,
    searched_names,
    spent,
    standing,
    trial_row,
)
from hpo_service.client.http import Client, StudyEvent
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.formatting import events as event_words

Json = dict[str, Any]

EXIT_STUDY_FAILED = 3
_REFRESH_SECONDS = 1.0
_LINES_AROUND_TRIALS = 9
_LINES_OF_A_WARNING = 3
_FEWEST_SHOWN = 5


def watch_study(client: Client, name: str) -> int:
    """Follow a study to its end. Returns the exit code: 3 if it failed, else 0."""
    final = follow_to_end(client, name)
    for line in summary(final):
        say(line)
    return EXIT_STUDY_FAILED if final["state"] == StudyState.FAILED else 0


def follow_to_end(client: Client, name: str, check: Callable[[], None] = lambda: None) -> Json:
    """Show a study until it ends; the study as it ended. `check` is called about once a second and may raise."""
    study = patient_study(client, name)
    if study["state"] in TERMINAL:
        return study
    if sys.stderr.isatty():
        with following(client, name, study["last_event"]) as follower:
            return _live(client, name, follower, check)
    with following(client, name) as follower:
        return _lines(client, name, follower, check)


def summary(study: Json) -> list[str]:
    """How a study ended, in sentences."""
    lines = [f"Study {study['name']} is {study['state']}{': ' + study['message'] if study['message'] else '.'}"]
    if study["best"]:
        lines.append(f"Best: {best_sentence(study['best'])}.")
    if (confirmed := sentence_of(study)) is not None:
        lines.append(f"Confirmation: {confirmed}")
    lines.append(f"Spent: {spent(study)}. Saved by stopping early: {saved(study)}.")
    return lines + edge_warnings(study["edges"])


def _lines(client: Client, name: str, follower: Follower, check: Callable[[], None]) -> Json:
    while True:
        check()
        events = follower.take(_REFRESH_SECONDS)
        for event in events:
            if line := describe(event):
                say(line)
        if not events or any(event.kind == "study.state" for event in events):
            study = patient_study(client, name)
            if study["state"] in TERMINAL and not events:
                return study


def _live(client: Client, name: str, follower: Follower, check: Callable[[], None]) -> Json:
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            check()
            started = time.monotonic()
            study = patient_study(client, name)
            trials = newest_trials(client, name, max(_FEWEST_SHOWN, console.height))
            live.update(_screen(study, trials, console.height), refresh=True)
            if study["state"] in TERMINAL:
                return study
            follower.take(_REFRESH_SECONDS)
            time.sleep(max(0.0, _REFRESH_SECONDS / 2 - (time.monotonic() - started)))


def _screen(study: Json, trials: list[Json], height: int) -> Group:
    header = Table(box=None, pad_edge=False, show_header=False)
    header.add_column(style="bold")
    header.add_column(overflow="fold")
    count = sum(study["trials"].values())
    rows = {
        "study": f"{study['name']} is {study['state']}, {count} of {study['max_trials']} trials",
        "best": best_sentence(study["best"]),
        **({"confirmation": sentence_of(study)} if study["confirmation"] else {}),
        "spent": spent(study),
        **({"forecast": forecast_sentence(study)} if study["forecast"] else {}),
        "saved": saved(study),
    }
    for label, value in rows.items():
        header.add_row(label, value)
    for warning in edge_warnings(study["edges"]):
        header.add_row("", warning)
    searched = searched_names(trials)
    room = max(_FEWEST_SHOWN, height - _LINES_AROUND_TRIALS - _LINES_OF_A_WARNING * len(study["edges"]))
    shown = trials[-room:]
    table = make_table(
        (*TRIAL_COLUMNS, *searched, "note"),
        [trial_row(trial, searched) for trial in shown],
        f"the last {len(shown)} trials" if len(shown) < count else None,
    )
    _colour(table, shown, study)
    return Group(header, Text(), table)


def _colour(table: Table, trials: list[Json], study: Json) -> None:
    styles = {"running": "cyan", "failed": "red", "pruned": "dim", "paused": "dim"}
    winner = study["best"]["trial_number"] if study["best"] else None
    for row, trial in zip(table.rows, trials, strict=True):
        row.style = "green" if trial["number"] == winner else styles.get(standing(trial))


def describe(event: StudyEvent) -> str | None:
    """An event as a line; None for those that are not worth one."""
    return event_words.describe(event.kind, event.data.get("trial_number"), event.data.get("payload", {}))
