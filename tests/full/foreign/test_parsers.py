"""Files for Axolotl and LLaMA-Factory, read by their own parsers in environments of their own.

An environment is made once from its pinned requirements; it takes minutes and gigabytes, mostly torch.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path

from hpo_service.exporters import render
from tests.exported import OTHER, document
from trainer.spec import TrialFile

HERE = Path(__file__).parent
KEYS = Path(__file__).parents[2] / "contracts" / "exporters" / "foreign_keys"
VERSIONS = {"axolotl": "0.19.0", "llamafactory": "0.9.5"}
CHANGES: list[dict[str, Any]] = [
    {},
    {**OTHER, "optimizer": "adamw"},
    {"lr_scheduler": "wsd", "target_modules": "attention"},
    {"init_lora_weights": "pissa", "target_modules": "q_proj"},
    {"model": {"attention": "sdpa", "dtype": "bfloat16"}, "data": {"eval": "eval.jsonl", "format": "chat"}},
    {"data": {"format": "sharegpt", "learn": "all"}},
    {"data": {"format": "prompt_completion"}, "lora_alpha": 11.5},
]


@dataclass(frozen=True)
class Answer:
    """What a trainer's parser says of every change: the keys that it knows, and the values that it read."""

    name: str
    keys: list[str]
    read: list[dict[str, Any]]


@pytest.fixture(scope="module", params=list(VERSIONS))
def answer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """One process reads all files: importing a trainer takes longer than reading."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    python = environment(name)
    files = [folder / f"{number}.yaml" for number in range(len(CHANGES))]
    for file, change in zip(files, CHANGES, strict=True):
        file.write_text(render(name, document(**change)).text)
    clean = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    command = [python, HERE / f"{name}_reader.py", *files]
    ran = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return Answer(name, **json.loads(ran.stdout.splitlines()[-1]))


def environment(name: str) -> Path:
    """Made if it is not there; a folder counts only with its mark, which is written last."""
    requirements = HERE / f"requirements-{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = user_cache_path("hpo-service") / "tools" / f"{name}-{VERSIONS[name]}-{digest}"
    python, mark = folder / "bin" / "python", folder / "complete"
    if not mark.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(requirements)], check=True)
        subprocess.run([*install, "--no-deps", f"{name}=={VERSIONS[name]}"], check=True)
        mark.touch()
    return python


@pytest.mark.timeout(1800)
def test_the_list_of_keys_is_the_parsers(answer: Answer) -> None:
    known = (KEYS / f"{answer.name}-{VERSIONS[answer.name]}.txt").read_text().split()
    assert answer.keys == known


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_every_value_comes_back(answer: Answer, number: int) -> None:
    made, found = document(**CHANGES[number]), answer.read[number]
    parameters = made.parameters
    for name in ("learning_rate", "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon"):
        assert found[name] == getattr(parameters, name)
    assert found["warmup_ratio"] == parameters.warmup_ratio
    assert found.get("neftune_noise_alpha") == (parameters.neftune_noise_alpha or None)
    ratio = None if parameters.loraplus_lr_ratio == 1 else parameters.loraplus_lr_ratio
    assert found.get("loraplus_lr_ratio") == ratio
    (axolotl_values if answer.name == "axolotl" else llamafactory_values)(found, made)


def axolotl_values(found: dict[str, Any], made: TrialFile) -> None:
    """Those whose names differ."""
    parameters = made.parameters
    assert found["micro_batch_size"] * found["gradient_accumulation_steps"] == parameters.effective_batch
    assert (found["lora_r"], found["num_epochs"], found["sequence_len"]) == (
        parameters.lora_r,
        parameters.epochs,
        made.data.max_length,
    )
    assert found.get("lora_alpha") == (parameters.lora_alpha if parameters.lora_alpha.is_integer() else None)
    assert (found["peft_use_rslora"], found["peft_use_dora"]) == (parameters.use_rslora, parameters.use_dora)
    assert found["datasets"][0]["path"] == made.data.train
    assert found["lora_target_linear"] is (parameters.target_modules == "all-linear")


def llamafactory_values(found: dict[str, Any], made: TrialFile) -> None:
    """Those whose names differ."""
    parameters = made.parameters
    batch = found["per_device_train_batch_size"] * found["gradient_accumulation_steps"]
    assert (batch, found["lora_rank"], found["lora_alpha"], found["cutoff_len"], found["num_train_epochs"]) == (
        parameters.effective_batch,
        parameters.lora_r,
        parameters.lora_alpha,
        made.data.max_length,
        parameters.epochs,
    )
    assert found["pissa_init"] is (parameters.init_lora_weights == "pissa")
    assert found["train_on_prompt"] is (made.data.learn == "all")
