"""From nothing to production as the README tells it: a study, a promotion, a branch of an Axolotl repository, GGUF."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml

from tests.e2e.service import ROOT, Service
from tests.e2e.test_readme import block
from tests.full.foreign.test_parsers import HERE, environment

MINE = """# Runs of the language team
base_model: another/base      # ours, not the search's
datasets:
  - path: ours.jsonl
    type: alpaca              # agreed
adapter: lora
micro_batch_size: 1
output_dir: ./out             # on the big disk
logging_steps: 10
lora_r: 64
deepspeed:
  # not while we have one GPU
"""


@dataclass(frozen=True)
class Walk:
    """Where the commands were run, in a git repository, and what they said."""

    service: Service
    repository: Path
    said: str

    def run(self, *command: str) -> str:
        """One more command there."""
        return run(self.service, self.repository, *command)


def run(service: Service, folder: Path, *command: str) -> str:
    environment = {**service.environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return ran.stdout


@pytest.fixture(scope="module")
def walk() -> Iterator[Walk]:
    pytest.importorskip("llama_cpp", reason="the extra gguf is not installed")
    folder = Path(mkdtemp(prefix="hpo-walk-"))
    folder.chmod(0o755)
    service, repository = Service(folder / "home"), folder / "runs"
    service.up()
    (folder / "study.yaml").write_text(block("study.yaml"))
    run(service, ROOT, "hpo", "study", "create", "-f", str(folder / "study.yaml"), "--watch")
    run(service, ROOT, "hpo", "promote", "wordnet", "--to", "wordnet-bot")
    repository.mkdir()
    (repository / "axolotl.yaml").write_text(MINE)
    for arguments in (
        ["init", "-q"],
        ["config", "user.name", "x"],
        ["config", "user.email", "x@example.org"],
        ["add", "axolotl.yaml"],
        ["commit", "-q", "-m", "ours"],
    ):
        run(service, repository, "git", *arguments)
    yield Walk(service, repository, run(service, repository, "bash", "-euo", "pipefail", "-c", block("delivery")))
    assert service.down() == 0
    rmtree(folder, ignore_errors=True)


def committed(walk: Walk) -> str:
    return walk.run("git", "show", "hpo/wordnet-bot:axolotl.yaml")


@pytest.mark.timeout(1800)
def test_the_promoted_parameters_are_on_a_branch_and_ours_stay(walk: Walk) -> None:
    parameters = walk.service.study("wordnet")["best"]["parameters"]
    merged = yaml.safe_load(committed(walk))
    for name in ("learning_rate", "lora_r", "lora_dropout", "weight_decay", "warmup_ratio"):
        assert merged[name] == parameters[name]
    assert (merged["output_dir"], merged["logging_steps"]) == ("./out", 10)
    assert (merged["base_model"], merged["datasets"]) == ("another/base", [{"path": "ours.jsonl", "type": "alpaca"}])
    assert "type: alpaca              # agreed\n" in committed(walk)
    assert "# on the big disk" in committed(walk)
    assert "# hpo: " in committed(walk)
    assert (walk.repository / "axolotl.yaml").read_text() == MINE
    assert walk.run("git", "status", "--porcelain", "--untracked-files=no") == ""
    assert "wordnet-bot@1" in walk.run("git", "log", "-1", "--format=%s", "hpo/wordnet-bot")


@pytest.mark.timeout(1800)
def test_axolotl_itself_reads_the_merged_file(walk: Walk, tmp_path: Path) -> None:
    (tmp_path / "axolotl.yaml").write_text(committed(walk))
    command = [environment("axolotl"), HERE / "axolotl_reader.py", tmp_path / "axolotl.yaml"]
    clean = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    read: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])["read"][0]
    parameters = walk.service.study("wordnet")["best"]["parameters"]
    assert (read["learning_rate"], read["lora_r"]) == (parameters["learning_rate"], parameters["lora_r"])
    assert read["micro_batch_size"] * read["gradient_accumulation_steps"] == parameters["effective_batch"]
    assert read["output_dir"] == "./out"


@pytest.mark.timeout(1800)
def test_the_quantized_model_says_something(walk: Walk) -> None:
    with walk.service.client() as client:
        made = client.get("/v1/deliveries/1")
    adapter, merged, quantized = made["artifacts"]
    assert made["losses"]["loss"] == walk.service.study("wordnet")["best"]["loss"]
    assert quantized["size_bytes"] < 0.5 * merged["size_bytes"]
    assert quantized["perplexity_after"] == pytest.approx(quantized["perplexity_before"], rel=0.05)
    assert quantized["location"] in walk.said
    assert adapter["size_bytes"] < quantized["size_bytes"]
    words = walk.run(sys.executable, "-c", block("generate")).strip()
    assert sum(character.isalpha() for character in words) >= 3
    assert "#" not in words
