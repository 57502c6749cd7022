"""Studies are told to Weights & Biases' own client offline: complete, and once however often they are told."""

from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from optuna.trial import TrialState
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.settings import Settings
from hpo_service.integrations import delivery as delivery_module
from hpo_service.integrations.delivery import Delivery
from hpo_service.integrations.process import make_sinks
from hpo_service.spec.trial_parameters import trained_with
from hpo_service.storage.tables import Slice
from tests import serving
from tests.dispatching import make, optuna_trials, post_study, state_of, turn_until
from tests.promoted import end_study, promote
from tests.tracked import drain, rewind
from tests.wandb_folder import OfflineRun, read_runs

Deliver = Callable[[], Delivery]
CROWNED = ("bot", ("champion", "latest"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path.resolve() / "files" / "home"


@pytest.fixture
def deliver(engine: Engine, home: Path) -> Deliver:
    """A new process of the outbox, as far as it matters."""

    def new() -> Delivery:
        wandb.teardown()  # what a process does at its end
        (sink,) = make_sinks(Settings(home=home, snapshot_keep_best=2), engine)
        return Delivery(engine, sink)

    return new


def by_trial(home: Path) -> dict[str, OfflineRun]:
    """Runs by the end of their ids: the trial's number, or `study`."""
    found = read_runs(home / "wandb")
    (identity,) = {"-".join(run.split("-")[:5]) for run in found}
    return {[*run.removeprefix(identity).split("-"), "study"][2]: content for run, content in found.items()}


def test_a_study_complete_and_once(
    deliver: Deliver,
    engine: Engine,
    sessions: sessionmaker[Session],
    database_url: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study_id = post_study(sessions, metadata__labels={"team": "nlp"})
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    dispatcher.context.proposals.close()
    with sessions.begin() as session:
        ref = serving.write_snapshot(home / "snapshots", f"{study_id}/0/1000/1", examples_seen=1000)
        session.execute(update(Slice).values(snapshots=[ref.model_dump()]))
    monkeypatch.setattr(delivery_module, "_BATCH_EVENTS", 9)
    while not (outbox := deliver()).turn():  # one process after the other
        assert not outbox.failures
    wandb.teardown()
    written = {path: path.stat().st_size for path in home.rglob("*.wandb")}
    rewind(engine)
    drain(deliver())
    wandb.teardown()
    assert {path: path.stat().st_size for path in home.rglob("*.wandb")} == written, "told again, nothing is new"

    runs, trials = by_trial(home), optuna_trials(database_url, "s")
    assert set(runs) == {"study", *(str(trial.number) for trial in trials)}
    for trial in trials:
        run = runs[str(trial.number)]
        losses = [(row["_step"], row["eval_loss"]) for row in run.history]
        assert losses == sorted(trial.intermediate_values.items())
        parameters = trained_with(trial.params, trial.user_attrs)
        assert {name: run.config[name] for name in parameters} == parameters
        assert run.config["hpo"]["hpo.state"] == {TrialState.COMPLETE: "complete"}.get(trial.state, "pruned")
        assert f"hpo.trial:{trial.number}" in run.tags
        assert (run.names, run.groups) == ({f"trial {trial.number}"}, {"s"})
        assert "cost_usd" in {*run.summary, *(name for row in run.history for name in row)}
        assert set(run.exit_codes) == {0}
    study = runs["study"]
    assert {"label.team:nlp", "hpo.state:completed"} <= set(study.tags)
    assert study.config["strategy"] == "freeze_thaw"
    kept = [set(files) for _, _, _, files in study.artifacts]
    assert {"study.json"} in kept
    assert any({"best.yaml", "report.html"} <= files for files in kept)
    adapters = [files for run in runs.values() for _, _, _, files in run.artifacts if run is not study]
    assert adapters == [("adapter/adapter_config.json", "adapter/adapter_model.safetensors")] * 2


def test_promotions_are_versions_and_the_champion_is_what_is_in_use(
    deliver: Deliver, engine: Engine, sessions: sessionmaker[Session], home: Path
) -> None:
    root = home.parent
    serving.make_inputs(root)
    api = serving.serve(engine, serving.settings(root))
    api.headers.update(serving.bearer(serving.make_key(sessions)))
    end_study(api, sessions, root)
    best = str(promote(api)["trial_number"])
    promote(api, trial=0)
    tell(sessions, deliver)
    assert api.post("/v1/promotions/bot:rollback", json={}).status_code == 201
    tell(sessions, deliver)
    rewind(engine)
    tell(sessions, deliver)
    wandb.teardown()
    versions = {
        number: [(name, aliases) for name, kind, aliases, _ in run.artifacts if kind == "model"]
        for number, run in by_trial(home).items()
    }
    assert {number: found for number, found in versions.items() if found} == {
        best: [CROWNED, CROWNED],
        "0": [CROWNED],
    }


def tell(sessions: sessionmaker[Session], deliver: Deliver) -> None:
    dispatcher, _ = serving.make_dispatcher(sessions)
    for _ in range(3):
        dispatcher.turn()
    dispatcher.context.proposals.close()
    dispatcher.context.leadership.release()
    drain(deliver())
