"""Reads LLaMA-Factory files with its own parser; runs in the environment of `requirements-llamafactory.txt`."""

import json
import sys
from dataclasses import asdict, fields
from typing import Any

from llamafactory.hparams.data_args import DataArguments
from llamafactory.hparams.finetuning_args import FinetuningArguments
from llamafactory.hparams.generating_args import GeneratingArguments
from llamafactory.hparams.model_args import ModelArguments
from llamafactory.hparams.training_args import TrainingArguments
from omegaconf import OmegaConf
from transformers import HfArgumentParser

PARTS = (ModelArguments, DataArguments, TrainingArguments, FinetuningArguments, GeneratingArguments)


def values(file: str) -> dict[str, Any]:
    """What the parser says of a file."""
    written: Any = OmegaConf.to_container(OmegaConf.load(file))
    parsed = HfArgumentParser(PARTS).parse_dict({**written, "output_dir": f"{file}.out", "use_cpu": True})
    return {name: value for part in parsed for name, value in asdict(part).items()}


read = [values(file) for file in sys.argv[1:]]
keys = sorted({field.name for part in PARTS for field in fields(part) if field.init})
sys.stdout.write(json.dumps({"keys": keys, "read": read}, default=str))
