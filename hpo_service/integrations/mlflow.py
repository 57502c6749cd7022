"""MLflow as a tracker: an experiment a project, a run a study, a nested run a trial."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import mlflow.entities as entities
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hpo_service.integrations.base import (
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
from hpo_service.integrations.mlflow_registry import ModelRegistry
from hpo_service.integrations.run_files import written, written_adapter

_KEY = "hpo.run"
#: MLflow's pages show an experiment of this kind as runs, not as traces
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_STATUS = {
    RunState.RUNNING: "RUNNING",
    RunState.FINISHED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.KILLED: "KILLED",
}
#: Answers that stay the same however often one asks: a run that somebody deleted, a value that has no place.
_FINAL_CODES = frozenset({"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"})
_PASSING_STATUSES = frozenset({401, 403, 408, 425, 429})
_MOST_PARAMETER_CHARACTERS = 6000
_MOST_TAG_CHARACTERS = 5000
_MOST_NAME_CHARACTERS = 250
_NOT_IN_NAMES = re.compile(r"[^\w. -]", re.ASCII)


@dataclass
class _Known:
    """A run that MLflow has, and what it was told for certain. `fresh`: neither it nor those below it hold more."""

    run_id: str
    fresh: bool
    state: RunState | None = None
    parameters_told: bool = False
    told_examples: dict[str, set[int]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class MlflowTracker:
    """Runs are found again by the tag `hpo.run`, metrics by name and step, so that nothing is told twice.

    After a failure nothing of that run is taken for known: what became of the call cannot be told from here.
    """

    name = "mlflow"

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._registry = ModelRegistry(self._client)
        self._experiment = experiment
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, _Known] = {}

    def update(self, update: RunUpdate) -> None:
        """See Tracker."""
        with self._explained(update.run):
            known = self._known(update.run)
        refusals = list[str]()
        for tell in (self._tell_facts, self._tell_state, self._tell_files):
            try:
                with self._explained(update.run):
                    tell(known, update)
            except SinkRefused as error:
                refusals.append(str(error))
        if update.run.parent is None and update.ended_at is not None:
            self._forget(update.run)
        if refusals:
            raise SinkRefused("; ".join(refusals))

    def register(self, registration: Registration) -> None:
        """See Tracker. The version's source is the folder `adapter` of the run."""
        tags = _tags(registration.tags)
        with self._explained(registration.run):
            version = self._registry.find(registration)
            if version is None:
                run_id = self._known(registration.run).run_id
                source = self._keep_adapter(run_id, registration)
                version = self._registry.make(registration, run_id, source, tags)
            self._registry.add_tags(version, tags)
            if registration.champion:
                self._registry.crown(registration, version)

    def _keep_adapter(self, run_id: str, registration: Registration) -> str:
        """Where it lies afterwards. It may be there from the study's end; then it is the same."""
        info = self._client.get_run(run_id).info
        if info.lifecycle_stage != "active":
            raise SinkRefused(f"run {run_id} of the trial is deleted; restore it, then promote again")
        with written_adapter(registration) as folder:
            self._client.log_artifacts(run_id, str(folder))
        return f"{info.artifact_uri}/adapter"

    def _tell_facts(self, known: _Known, update: RunUpdate) -> None:
        metrics = self._untold(known, update.metrics)
        parameters = {} if known.parameters_told else update.parameters
        tags = dict(_tags(update.tags).items() - known.tags.items())
        if metrics or parameters or tags:
            self._client.log_batch(
                known.run_id,
                metrics=[entities.Metric(one.name, one.value, _milliseconds(one.at), one.examples) for one in metrics],
                params=[entities.Param(name, value[:_MOST_PARAMETER_CHARACTERS]) for name, value in parameters.items()],
                tags=[entities.RunTag(name, value) for name, value in tags.items()],
            )
        known.tags |= tags
        known.parameters_told |= bool(parameters)
        for one in metrics:
            known.told_examples.setdefault(one.name, set()).add(one.examples)

    def _untold(self, known: _Known, metrics: Sequence[Metric]) -> list[Metric]:
        for name in {one.name for one in metrics} - known.told_examples.keys():
            history = [] if known.fresh else self._client.get_metric_history(known.run_id, name)
            known.told_examples[name] = {point.step for point in history}
        return [one for one in metrics if one.examples not in known.told_examples[one.name]]

    def _tell_state(self, known: _Known, update: RunUpdate) -> None:
        if update.state is None or update.state is known.state:
            return
        status = _STATUS[update.state]
        if update.ended_at is None:
            self._client.update_run(known.run_id, status=status)
        else:
            self._client.set_terminated(known.run_id, status=status, end_time=_milliseconds(update.ended_at))
        known.state = update.state

    def _tell_files(self, known: _Known, update: RunUpdate) -> None:
        if update.write_files is None:
            return
        with written(update.write_files) as folder:
            self._client.log_artifacts(known.run_id, str(folder))

    def _known(self, run: Run) -> _Known:
        if run.key not in self._runs:
            parent = None if run.parent is None else self._known(run.parent)
            found = None if parent is not None and parent.fresh else self._find(run)
            self._runs[run.key] = found or self._make(run, parent)
        return self._runs[run.key]

    def _find(self, run: Run) -> _Known | None:
        """The run, if it is there. Of several (the answer to a call came too late), the others are deleted."""
        found = self._client.search_runs(
            [self._experiment_id(run.project)],
            filter_string=f"tags.`{_KEY}` = '{run.key}'",
            run_view_type=entities.ViewType.ALL,
            max_results=100,
        )
        if not found:
            return None
        # One that somebody deleted stays deleted, and is not made anew.
        active = sorted(one.info.run_id for one in found if one.info.lifecycle_stage == "active")
        for twin in active[1:]:
            self._client.delete_run(twin)
        return _Known(run_id=(active or [found[0].info.run_id])[0], fresh=False)

    def _make(self, run: Run, parent: _Known | None) -> _Known:
        tags = {**run.tags, _KEY: run.key, "mlflow.source.name": "hpo"}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.run_id
        made = self._client.create_run(
            self._experiment_id(run.project),
            start_time=_milliseconds(run.started_at),
            tags=_tags(tags),
            run_name=run.name,
        )
        return _Known(run_id=made.info.run_id, fresh=True, state=RunState.RUNNING)

    def _experiment_id(self, project: str) -> str:
        if project not in self._experiments:
            name = self._experiment if project == DEFAULT_PROJECT else f"{self._experiment}/{project}"
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage != "active":
                raise SinkAway(f"experiment {name!r} is deleted; restore it, or name another: MLFLOW_EXPERIMENT_NAME")
            made = self._client.create_experiment(name, tags=_KIND) if found is None else found.experiment_id
            self._experiments[project] = str(made)
        return self._experiments[project]

    def _forget(self, run: Run) -> None:
        """Its study has ended; should it be told of again, all is looked up."""
        for key in [key for key in self._runs if key == run.key or key.startswith(f"{run.key}/")]:
            del self._runs[key]

    @contextmanager
    def _explained(self, run: Run) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            if error.error_code in _FINAL_CODES:
                raise SinkRefused(quoted(error)) from error
            self._know_nothing(run)
            raise SinkAway(quoted(error)) from error
        except ImportError as error:
            raise SinkRefused(f"files cannot be stored from here: {error}") from error
        except OSError as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUSES:
                raise SinkRefused(quoted(error)) from error
            self._know_nothing(run)
            raise SinkAway(quoted(error)) from error

    def _know_nothing(self, run: Run) -> None:
        self._runs.pop(run.key, None)
        parent = run.parent
        while parent is not None:
            if parent.key in self._runs:
                self._runs[parent.key].fresh = False
            parent = parent.parent


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Names are labels of users, too."""
    return {
        _NOT_IN_NAMES.sub("_", name)[:_MOST_NAME_CHARACTERS]: value[:_MOST_TAG_CHARACTERS]
        for name, value in tags.items()
    }


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
