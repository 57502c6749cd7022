"""Delivering models in tests: the tiny base with a small adapter on it, and the command as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[1]
TINY = ROOT / "examples" / "tiny-llama"
TRAIN = ROOT / "examples" / "wordnet-instruct" / "train.jsonl"
EVAL = ROOT / "examples" / "wordnet-instruct" / "eval.jsonl"


def deliver(*arguments: str | Path, threads: int = 1) -> dict[str, Any]:
    """Run `python -m trainer ARGUMENTS`; what the last line of its stdout says."""
    command = [sys.executable, "-m", "trainer", *map(str, arguments), "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    summary: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return summary


def save_adapter(base: Path, folder: Path) -> Path:
    """An adapter by PEFT that changes the base a little."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft: Any = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=3e-3)
    peft.save_pretrained(folder)
    return folder


def merged_model(base: Path, folder: Path) -> Path:
    """The base with that adapter merged in."""
    output = folder / "merged"
    deliver("merge", "--model", base, "--adapter", save_adapter(base, folder / "adapter"), "-o", output)
    return output
