"""Adapters that PEFT itself wrote, on the tiny random Llama."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

MakeAdapter = Callable[..., Path]


@pytest.fixture
def make_adapter(base_folder: Path, tmp_path: Path) -> MakeAdapter:
    """Saves an adapter with weights that do something; keywords go to LoraConfig."""

    def make(**settings: Any) -> Path:
        folder = tmp_path / "adapter"
        wanted = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
        model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        peft: Any = get_peft_model(model, LoraConfig(**wanted))
        torch.manual_seed(5)
        for name, weight in peft.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.05)
            elif "magnitude" in name:
                weight.data.mul_(1.1)
        peft.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def merge_options(base_folder: Path, tmp_path: Path) -> Callable[..., Namespace]:
    """The options of `merge` with defaults."""

    def options(adapter: Path, **values: Any) -> Namespace:
        defaults = {
            "model": str(base_folder),
            "adapter": adapter,
            "output": tmp_path / "merged",
            "dtype": None,
            "max_shard_size": 10**9,
            "eval_data": None,
            "eval_rows": 4,
            "format": "auto",
            "max_length": 128,
            "compute_dtype": "float32",
            "threads": 1,
        }
        return Namespace(**{**defaults, **values})

    return options
