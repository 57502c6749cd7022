"""The CLI against a real API, a real database and a dispatcher whose slices end at once."""

import json
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import uvicorn
import yaml
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.app import create_app
from hpo_service.cli import main
from hpo_service.client.http import ApiProblem, best_config
from hpo_service.notebook import load_study
from hpo_service.storage.database import optuna_url
from tests import serving
from trainer.spec import TrialFile


@pytest.fixture
def _service(
    engine: Engine, sessions: sessionmaker[Session], root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An API on a port of its own, found through the environment."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = create_app(serving.settings(root), engine, with_dashboard=False)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    monkeypatch.setenv("HPO_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setenv("HPO_API_KEY", serving.make_key(sessions))
    monkeypatch.setenv("HPO_HOME", str(root / "home"))
    while not server.started:
        time.sleep(0.01)
    yield
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def _dispatching(_service: None, sessions: sessionmaker[Session]) -> Iterator[None]:
    """A dispatcher beside the API."""
    dispatcher, _ = serving.make_dispatcher(sessions)
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def study_file(tmp_path: Path) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(serving.spec()))
    return str(path)


class Hpo:
    """Runs commands and remembers what they said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = self._capsys.readouterr()
        self.err = said.err
        assert (stopped.value.code or 0) == code, said.err
        assert "\x1b" not in said.out + said.err
        return said.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))


@pytest.fixture
def hpo(capsys: pytest.CaptureFixture[str]) -> Hpo:
    return Hpo(capsys)


@pytest.mark.usefixtures("_dispatching")
def test_a_study_from_file_to_config(hpo: Hpo, study_file: str, tmp_path: Path) -> None:
    assert "passed" in hpo("study", "validate", "-f", study_file, "--wait")
    out = hpo("study", "create", "-f", study_file, "--watch", "--set", "budget.max_trials=4")
    assert out == ""
    assert "data check: pass" in hpo.err
    assert "trial 0 has loss" in hpo.err
    assert "Study first is completed" in hpo.err

    study = hpo.json("study", "show", "first")
    assert study["state"] == "completed"
    assert study["max_trials"] == 4
    assert [row["name"] for row in hpo.json("study", "list")] == ["first"]
    assert "completed" in hpo("study", "list")
    assert "learning_rate" in hpo("study", "show", "first")
    assert "100% train" in hpo("study", "show", "first")
    assert hpo.json("study", "data-check", "first", "--wait")["state"] == "passed"
    assert hpo("study", "data-check", "first").startswith("# Data quality: PASS")

    trials = hpo.json("trial", "list", "first")
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert "baseline" in hpo("trial", "list", "first")
    assert hpo.json("trial", "show", "first", "0")["baseline"] is True
    assert "done" in hpo("trial", "show", "first", "0")

    for format in ("yaml", "json", "hf", "peft"):
        assert "learning_rate" in hpo("best", "first", "--format", format) or format == "peft"
    assert "no place for" in hpo.err
    target = tmp_path / "best.yaml"
    assert hpo("best", "first", "-o", str(target)) == ""
    best = TrialFile.model_validate(yaml.safe_load(target.read_text()))
    assert best.parameters.learning_rate == study["best"]["parameters"]["learning_rate"]
    assert hpo("study", "watch", "first") == ""

    for name, begin in (("report.html", "<!doctype html>"), ("report.md", "# Report on study first")):
        assert hpo("report", "first", "-o", str(tmp_path / name)) == ""
        assert (tmp_path / name).read_text().startswith(begin)
    assert hpo("report", "first").startswith("# Report on study first")
    hpo("report", "first", "-o", "report.pdf", code=1)
    assert "neither .html nor .md" in hpo.err

    assert hpo.json("study", "clone", "first", "second", "--set", "budget.max_trials=2")["name"] == "second"
    hpo("study", "watch", "second")
    hpo("study", "delete", "first", "--yes")


@pytest.mark.usefixtures("_service")
def test_steering_and_refusals(hpo: Hpo, study_file: str) -> None:
    assert hpo.json("study", "create", "-f", study_file, "--name", "other")["state"] == "queued"
    hpo("study", "create", "-f", study_file, "--name", "other", code=1)
    assert "exists already" in hpo.err
    assert "extend" in str(hpo.json("study", "extend", "other", "--set", "budget.max_trials=9")["pending"])
    hpo("study", "extend", "other", "--set", "budget.max_trials=10")
    assert "budget.max_trials=10 is accepted" in hpo.err
    hpo("study", "extend", "other", "--set", "budget.max_trals=9", code=4)
    hpo("trial", "enqueue", "other", "learning_rate=3e-4")
    for verb in ("pause", "stop"):
        hpo("study", verb, "other")
    hpo("study", "show", "nothing", code=1)
    assert "no study named 'nothing'" in hpo.err
    hpo("best", "other", code=1)


@pytest.mark.usefixtures("_service")
def test_an_invalid_spec_is_explained_field_by_field(hpo: Hpo, study_file: str) -> None:
    report = hpo.json("study", "validate", "-f", study_file)
    assert report["data_check"]["state"] == "pending"
    assert report["dimensions"] == 2
    assert "rungs" in hpo("study", "validate", "-f", study_file)
    hpo("study", "create", "-f", study_file, "--set", "budgett.max_trials=4", code=4)
    assert "budget" in hpo.err
    hpo("study", "create", "-f", study_file, "--set", "space.learning_rate.low=1", code=4)
    assert "learning_rate" in hpo.err
    hpo("study", "create", "-f", study_file, "--set", "model.path=/etc", code=4)
    assert hpo.json("study", "list") == []


@pytest.mark.usefixtures("_service")
def test_spaces_and_login(hpo: Hpo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {space["name"] for space in hpo.json("space", "list")} >= {"quick", "standard", "wide"}
    assert "quick" in hpo("space", "list")
    assert "/login?token=" in hpo("login")
    monkeypatch.setenv("HPO_API_KEY", "hpo_key_1_wrong")
    hpo("study", "list", code=1)
    assert "not valid" in hpo.err


@pytest.mark.usefixtures("_dispatching")
def test_a_range_that_is_too_narrow_is_widened_by_the_command_that_is_shown(hpo: Hpo, study_file: str) -> None:
    narrow = ("--set", "space.learning_rate.high=3e-4", "--set", "search.strategy=freeze_thaw")
    hpo("study", "create", "-f", study_file, *narrow, "--set", "budget.max_trials=300")
    deadline = time.monotonic() + 60
    while not (edges := hpo.json("study", "show", "first")["edges"]):
        assert time.monotonic() < deadline, "no edge was found"
        time.sleep(0.2)
    (edge,) = edges
    assert (edge["parameter"], edge["side"], edge["high"]) == ("learning_rate", "upper", 3e-4)
    hpo("study", "show", "first")
    assert edge["command"] in hpo.err
    program, *arguments = shlex.split(edge["command"])
    assert program == "hpo"
    hpo(*arguments)
    while (study := hpo.json("study", "show", "first"))["pending"]:
        time.sleep(0.1)
    assert study["resolved"]["space"]["parameters"]["learning_rate"]["high"] == 9e-4
    hpo("study", "cancel", "first")


@pytest.mark.usefixtures("_dispatching")
def test_a_notebook_anywhere_has_the_study_as_optunas_tables_have_it(
    hpo: Hpo, study_file: str, database_url: str
) -> None:
    hpo("study", "create", "-f", study_file, "--watch", "--set", "search.strategy=asha")
    cell: dict[str, Any] = {}
    exec(hpo("login", "--notebook"), cell)
    copied, stored = cell["study"], optuna.load_study(study_name="first", storage=optuna_url(database_url))
    assert (copied.best_params, copied.best_value) == (stored.best_params, stored.best_value)
    assert len(copied.trials) == len(stored.trials) > 3
    for ours, theirs in zip(copied.trials, stored.trials, strict=True):
        ours._trial_id, ours.system_attrs = theirs._trial_id, theirs.system_attrs
        assert ours == theirs
    exec(hpo("login", "first", "--notebook"), cell)
    assert cell["study"].best_params == copied.best_params
    hpo("login", "nowhere", "--notebook", code=1)
    hpo("login", "first", code=2)
    assert "named with --notebook only" in hpo.err
    with pytest.raises(ApiProblem, match="nowhere"):
        load_study("nowhere")


@pytest.mark.usefixtures("_dispatching")
def test_of_an_ended_study_a_wider_clone_is_offered(hpo: Hpo, study_file: str) -> None:
    narrow = ("--set", "space.learning_rate.high=3e-4", "--set", "search.strategy=freeze_thaw")
    hpo("study", "create", "-f", study_file, "--watch", *narrow, "--set", "budget.max_trials=25")
    assert "Warning: learning_rate lies at the upper edge of its range" in hpo.err
    found = hpo.json("study", "importances", "first")
    assert found["importances"][0]["parameter"] == "learning_rate"
    assert "learning_rate" in hpo("study", "importances", "first")
    _, *arguments = shlex.split(found["edges"][0]["command"])
    hpo(*arguments)
    clone = hpo.json("study", "show", "first-wider")
    assert clone["resolved"]["space"]["parameters"]["learning_rate"] == {
        **hpo.json("study", "show", "first")["resolved"]["space"]["parameters"]["learning_rate"], "high": 9e-4,
    }  # fmt: skip
    assert "an even design" in hpo("study", "explain", "first")
    assert "another 10 % of the bill would be expected to lower the best loss by" in hpo("study", "show", "first")


@pytest.mark.usefixtures("_service")
def test_a_suggested_spec_is_written_once_and_validates(hpo: Hpo, tmp_path: Path) -> None:
    file = str(tmp_path / "suggested.yaml")
    files = ("--model", "model", "--data", "train.jsonl", "--eval", "eval.jsonl")
    hpo("study", "suggest-spec", *files, "-o", file)
    assert f"hpo study validate -f {file}" in hpo.err
    report = json.loads(hpo("study", "validate", "-f", file, "-o", "json"))
    assert report["name"] == "model-train"
    hpo("study", "suggest-spec", *files, "-o", file, code=1)
    assert "exists already" in hpo.err
    assert yaml.safe_load(hpo("study", "suggest-spec", *files))["preset"] == "small-data"


@pytest.mark.usefixtures("_dispatching")
def test_from_the_best_trial_to_production(
    hpo: Hpo, study_file: str, root: Path, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    hpo("study", "create", "-f", study_file, "--watch", "--set", "budget.max_trials=2", "--set", "search.strategy=none")
    for number in (0, 1):
        serving.keep_snapshot(root, sessions, number)
    made = hpo.json("promote", "first", "--trial", "1", "--to", "bot", "--note", "for the bot")
    hpo("promote", "first", "--trial", "0", "--to", "bot")
    assert "bot@2: trial 0 of study first. It is the baseline itself." in hpo.err
    assert [row["version"] for row in hpo.json("promotion", "list", "bot")] == [2, 1]
    assert "for the bot" in hpo("promotion", "show", "bot@1")
    assert "bot@2" in hpo("promotion", "list")
    assert "parameters.learning_rate" in hpo("promotion", "diff", "bot@1", "bot")
    assert hpo.json("promotion", "rollback", "bot")["rollback_of"] == 1
    hpo("promotion", "rollback", "bot", code=1)
    hpo("promotion", "approve", "bot@1", code=1)
    assert "needs no approval" in hpo.err

    values = tmp_path / "values.yaml"
    values.write_bytes(b"image: {repo: x}  # pinned\r\n")
    hpo("export", "bot@1", "--format", "helm", "--merge", f"{values}:training.best")
    assert values.read_bytes().startswith(b"image: {repo: x}  # pinned\r\ntraining:\r\n")
    assert yaml.safe_load(values.read_text())["training"]["best"] == {"parameters": made["parameters"]}
    assert "Not written: belongs to the file (--include model): model.path" in hpo.err
    hpo("best", "first", "--format", "helm", "--merge", f"{values}:training.best", "--include", "data,seed")
    found = yaml.safe_load(values.read_text())["training"]["best"]
    assert (found["data"]["format"], found["training"]) == ("alpaca", {"seed": 0})
    hpo("export", "bot@1", "--format", "helm", "--merge", str(values), "--include", "paths", code=1)
    assert "there is no group 'paths'. There are model: base model" in hpo.err
    hpo("export", "bot@1", "--format", "kustomize", "--merge", str(values), code=1)
    assert "is a whole, its values cannot be merged" in hpo.err
    hpo("export", "bot@1", "--pull-request", code=1)
    assert "--pull-request needs the name of the file" in hpo.err
    hpo("export", "bot", "--format", "peft", "--strict", code=1)
    assert "format peft has no key for" in hpo.err
    hpo("export", "none", code=1)

    config = best_config("bot")
    assert (config["parameters"], config["provenance"]["promotion"]) == (made["parameters"], "bot@3")
    assert best_config("bot@2")["provenance"]["trial"] == 0


@pytest.mark.usefixtures("_dispatching")
def test_a_promotion_becomes_a_pull_request(
    hpo: Hpo,
    study_file: str,
    root: Path,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Branch, commit and the text with the evidence; without a command of the host nothing is pushed."""
    hpo("study", "create", "-f", study_file, "--watch", "--set", "budget.max_trials=2", "--set", "search.strategy=none")
    serving.keep_snapshot(root, sessions, 1)
    made = hpo.json("promote", "first", "--trial", "1", "--to", "bot")
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "x")
        monkeypatch.setenv(f"{name}_EMAIL", "x@example.org")
    repository = tmp_path / "repository"
    repository.mkdir()
    mine = "# ours\nbase_model: theirs\nlearning_rate: 1e-3  # why\nmicro_batch_size: 1\n"
    file = repository / "axolotl.yaml"
    file.write_text(mine)
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "ours"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    shown = hpo("export", "bot", "--format", "axolotl", "--merge", str(file), "--pull-request")
    assert shown == "git push REMOTE hpo/bot-1\n"
    assert "Committed" in hpo.err
    assert file.read_text() == mine
    merged = git(repository, "show", "hpo/bot-1:axolotl.yaml")
    rate = yaml.safe_load(merged)["learning_rate"]
    assert rate == made["parameters"]["learning_rate"]
    assert "base_model: theirs\n" in merged
    assert git(repository, "log", "-1", "--format=%s", "hpo/bot-1") == "hpo: promotion bot@1\n"
    told = next((repository / ".git" / "hpo").iterdir()).read_text()
    assert f"/studies/first), trial {made['trial_number']} |" in told
    assert "| `learning_rate` | `1e-3` | `" in told
    assert "- belongs to the file (--include model): base\\_model" in told
    assert made["verdict"].split(":")[0] in told


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=repository, check=True, capture_output=True, text=True).stdout
