"""What has to be at MLflow of a study, read with its own client."""

import json

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine

from hpo_service.integrations.delivery import Delivery
from hpo_service.spec.trial_parameters import trained_with
from tests.dispatching import optuna_trials

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}


def drain(delivery: Delivery, turns: int = 2000) -> int:
    """Tell everything, without the pauses; how many turns failed."""
    failed = 0
    for _ in range(turns):
        seconds = delivery.turn()
        if not delivery.failures and seconds:
            return failed
        failed += bool(delivery.failures)
    raise AssertionError(f"not told in {turns} turns")


def rewind(engine: Engine) -> None:
    """As if nothing had been told."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE hpo.outbox_cursors SET last_event_id = 0")


def runs_of(client: MlflowClient, experiment: str = "hpo") -> list[Run]:
    """All active runs of an experiment."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000))


def require_told(client: MlflowClient, database_url: str, name: str = "s", status: str = "FINISHED") -> Run:
    """The study's run, if it and a run of every trial are there, complete and once."""
    runs = [run for run in runs_of(client) if run.data.tags["hpo.study"] == name]
    (parent,) = [run for run in runs if "hpo.trial" not in run.data.tags]
    assert (parent.info.run_name, parent.info.status) == (name, status)
    children = {int(run.data.tags["hpo.trial"]): run for run in runs if run is not parent}
    assert len(children) == len(runs) - 1, "a trial has two runs"
    trials = optuna_trials(database_url, name)
    assert sorted(children) == [trial.number for trial in trials]
    for trial in trials:
        _require_trial(client, parent, children[trial.number], trial)
    return parent


def _require_trial(client: MlflowClient, parent: Run, run: Run, trial: FrozenTrial) -> None:
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.info.status == STATUS[trial.state]
    assert run.info.end_time >= run.info.start_time
    history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "eval_loss")]
    assert sorted(history) == sorted(trial.intermediate_values.items())
    parameters = trained_with(trial.params, trial.user_attrs)
    assert run.data.params == {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()
    }
