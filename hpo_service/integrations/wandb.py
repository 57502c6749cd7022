"""Weights & Biases as a tracker: a project for each of ours, a group a study, a run for it and for each trial."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import Error as WandbError
from wandb.sdk.mailbox import MailboxClosedError
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from hpo_service.integrations.base import (
    CHAMPION,
    DEFAULT_PROJECT,
    Metric,
    Registration,
    Run,
    RunState,
    RunUpdate,
    SinkAway,
    SinkRefused,
    quoted,
)
from hpo_service.integrations.run_files import written, written_adapter
from hpo_service.integrations.wandb_ledger import Ledger, Told

#: of runs that live at the same time; each costs its client some memory and an open file
_MOST_OPEN = 32
_MOST_TAG_CHARACTERS = 64
_MOST_NAME_CHARACTERS = 128
_NOT_IN_NAMES = re.compile(r"[^\w.-]", re.ASCII)
_DELETED = "previously created and deleted"


class WandbTracker:
    """What was told is kept beside the runs' files, so that nothing is told twice.

    Steps are examples; a run takes them in order only. Online, the client sends what it was given on its own; what it
    had not sent when its process ended lies below `folder` for `wandb sync`.
    """

    name = "wandb"

    def __init__(self, project: str, folder: Path, *, offline: bool) -> None:
        self._project = project
        self._ledger = Ledger(folder / "told")
        self._open: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = wandb.Settings(
            mode="offline" if offline else "online",
            root_dir=str(folder),
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )

    def update(self, update: RunUpdate) -> None:
        """See Tracker."""
        run_id = _name(update.run.key)
        with self._explained(run_id), self._ledger.run(run_id) as told:
            self._tell_facts(update, told)
            self._tell_files(update, told)
            self._tell_state(update, told)

    def register(self, registration: Registration) -> None:
        """See Tracker. The version is an artifact of type `model` that the trial's run logs."""
        run_id, name = _name(registration.run.key), _name(registration.name)
        since = registration.promoted_since
        with self._explained(run_id), self._ledger.model(registration.name) as told:
            crowned = registration.champion and told.champion_since < since
            if registration.key in told.keys and not crowned:
                return
            with written_adapter(registration) as folder:
                version = wandb.Artifact(name, type="model", metadata=dict(registration.tags))
                version.add_dir(str(folder))
                self._run(registration.run).log_artifact(version, aliases=[CHAMPION] if crowned else [])
            self._finish(run_id, RunState.FINISHED)
            told.keys = sorted({*told.keys, registration.key})
            told.champion_since = since if crowned else told.champion_since

    def _tell_facts(self, update: RunUpdate, told: Told) -> None:
        tags = {**update.run.tags, **update.tags}
        over = told.state is not None and update.ended_at is None  # what comes after the end is old
        if not over and tags.items() - told.tags.items():
            told.tags |= tags
            run = self._run(update.run)
            run.tags = tuple(f"{name}:{value}"[:_MOST_TAG_CHARACTERS] for name, value in sorted(told.tags.items()))
            run.config.update({"hpo": told.tags}, allow_val_change=True)
        if update.parameters and not told.parameters:
            self._run(update.run).config.update(_values(update.parameters), allow_val_change=True)
            told.parameters = True
        for step, figures in _by_step(update.metrics):
            self._tell_figures(update.run, told, step, figures)

    def _tell_figures(self, run: Run, told: Told, step: int, figures: dict[str, float]) -> None:
        if step > told.step:
            self._run(run).log(figures, step=step)
            told.step, told.names = step, sorted(figures)
        elif step == told.step and (late := {name: figures[name] for name in figures if name not in told.names}):
            # The step is closed; what is known of a trial at its end belongs to no step anyway.
            self._run(run).summary.update(late)
            told.names = sorted({*told.names, *late})

    def _tell_files(self, update: RunUpdate, told: Told) -> None:
        if update.write_files is None:
            return
        with written(update.write_files) as folder:
            found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
            if found <= set(told.files):
                return
            files = wandb.Artifact(f"{_name(update.run.key)}-files", type="hpo")
            files.add_dir(str(folder))
            self._run(update.run).log_artifact(files)
        told.files = sorted(found.union(told.files))

    def _tell_state(self, update: RunUpdate, told: Told) -> None:
        run_id = _name(update.run.key)
        if update.ended_at is not None and update.state is not None:
            if told.state != update.state:
                self._run(update.run)  # one that was told nothing else ends as well
            told.state = str(update.state)
            self._finish(run_id, update.state)
        elif told.state is not None:
            self._finish(run_id, RunState(told.state))  # it had ended, and got files afterwards

    def _run(self, run: Run) -> Any:  # noqa: ANN401
        """The open run; one that was finished goes on."""
        run_id = _name(run.key)
        if run_id not in self._open:
            while len(self._open) >= _MOST_OPEN:
                self._finish(next(iter(self._open)), RunState.FINISHED)
            top = run
            while top.parent is not None:
                top = top.parent
            self._open[run_id] = wandb.init(
                project=self._project if run.project == DEFAULT_PROJECT else f"{self._project}-{_name(run.project)}",
                id=run_id,
                name=run.name,
                group=top.name,
                job_type="trial" if "hpo.trial" in run.tags else "study",
                resume="allow",
                reinit="create_new",
                settings=self._settings,
            )
        return self._open[run_id]

    def _finish(self, run_id: str, state: RunState) -> None:
        run = self._open.pop(run_id, None)
        if run is not None:
            run.finish(exit_code=1 if state is RunState.FAILED else 0)

    @contextmanager
    def _explained(self, run_id: str) -> Iterator[None]:
        try:
            yield
        except (WandbError, ServerResponseError, MailboxClosedError, OSError) as error:
            with suppress(Exception):  # it may be what is broken; the next try begins it anew
                self._finish(run_id, RunState.FINISHED)
            raise (SinkRefused if _DELETED in str(error) else SinkAway)(quoted(error)) from error


def _by_step(metrics: Sequence[Metric]) -> list[tuple[int, dict[str, float]]]:
    found: dict[int, dict[str, float]] = {}
    for one in metrics:
        found.setdefault(one.examples, {})[one.name] = one.value
    return sorted(found.items())


def _values(parameters: Mapping[str, str]) -> dict[str, object]:
    """As numbers where they are some, so that W&B can plot them."""
    return {name: _value(text) for name, text in parameters.items()}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("-", text)[:_MOST_NAME_CHARACTERS]
