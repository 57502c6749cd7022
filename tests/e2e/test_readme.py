"""The README's example is run as it stands: a study, its best config, the trainer on that config, the notebook."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpo_service.core.settings import Settings
from tests.consistency.study import disagreements
from tests.e2e.service import ROOT, Service

README = (ROOT / "README.md").read_text()


def block(marker: str) -> str:
    """The code block below the comment that begins with `marker`."""
    found = re.search(rf"<!-- {re.escape(marker)}.*?-->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no block {marker}"
    return found.group(1)


@pytest.fixture(scope="module")
def best(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.yaml, made by the README's commands."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "study.yaml").write_text(block("study.yaml"))
    watched = service.run("study", "create", "-f", str(folder / "study.yaml"), "--watch")
    assert watched.returncode == 0, watched.stderr
    exported = service.run("best", "wordnet", "--format", "yaml", "-o", str(folder / "best.yaml"))
    assert exported.returncode == 0, exported.stderr
    return folder / "best.yaml"


def test_the_exported_config_trains_to_the_trials_own_loss(service: Service, best: Path) -> None:
    study = service.study("wordnet")
    assert study["state"] == "completed"
    command = [sys.executable, "-m", "trainer", "run", str(best), "--output-dir", str(best.parent / "run")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    assert report["eval_loss"] == study["best"]["loss"]
    assert study["best"]["improvement"]["relative"] > 0
    assert disagreements(service.place(), "wordnet") == []


def test_optuna_reads_the_study_from_a_notebook(service: Service, best: Path) -> None:
    shown = {}
    told = "\nimport json\nprint(json.dumps([study.best_value, study.best_params, len(study.trials)]))"
    for name in ("notebook", "reading"):
        ran = notebook(service, block(name) + told)
        assert ran.returncode == 0, ran.stderr
        value, parameters, trials = shown[name] = json.loads(ran.stdout)
        found = service.study("wordnet")["best"]
        assert (value, trials) == (found["loss"], 8)
        assert {name: found["parameters"][name] for name in parameters} == parameters
    assert shown["notebook"] == shown["reading"]
    refused = notebook(
        service, block("reading") + "\noptuna.delete_study(study_name=study.study_name, storage=study._storage)"
    )
    assert refused.returncode != 0
    assert "permission denied" in refused.stderr


def notebook(service: Service, code: str) -> subprocess.CompletedProcess[str]:
    """Run what a notebook's cells say."""
    return subprocess.run(
        [sys.executable, "-c", code], env=service.environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_best_trial_goes_to_production(service: Service, best: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "values.yaml").write_text("image: {repo: x}  # pinned\n")
    for arguments in (
        ["init", "-q"],
        ["config", "user.name", "x"],
        ["config", "user.email", "x@example.org"],
        ["add", "."],
        ["commit", "-q", "-m", "ours"],
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    environment = {
        **service.environment(),
        "HPO_URL": service.url,
        "HPO_API_KEY": (service.home / "admin.key").read_text().strip(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(*command: str) -> str:
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    proposal, _, answered = run("bash", "-euo", "pipefail", "-c", block("promotion")).partition("\n")
    pulled = yaml.safe_load(answered)
    parameters = service.study("wordnet")["best"]["parameters"]
    assert pulled["parameters"] == parameters
    assert pulled["provenance"]["promotion"] == "wordnet-bot@1"
    assert len(pulled["provenance"]["base_digest"]) == 64
    assert yaml.safe_load((tmp_path / "axolotl.yaml").read_text())["learning_rate"] == parameters["learning_rate"]
    assert (tmp_path / "values.yaml").read_text().startswith("image: {repo: x}  # pinned\n")
    assert proposal == "git push REMOTE hpo/values"
    values = yaml.safe_load(run("git", "show", "hpo/values:values.yaml"))
    assert values == {"image": {"repo": "x"}, "training": {"best": {"parameters": parameters}}}
    assert yaml.safe_load(run("git", "show", "hpo/wordnet-bot:conf/best.yaml")) == pulled
    said = run(sys.executable, "-c", block("pull") + "\nprint(learning_rate)")
    assert float(said) == parameters["learning_rate"]


def test_every_setting_is_in_the_readme() -> None:
    fields = Settings.model_fields.items()
    names = [str(field.validation_alias or f"HPO_{name.upper()}") for name, field in fields]
    assert [name for name in names if f"`{name}`" not in README] == []
