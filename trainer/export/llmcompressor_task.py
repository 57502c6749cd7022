"""Quantize one model with llmcompressor: `python llmcompressor_task.py TASK.json RESULT.json`.

Runs in an environment of its own, whose transformers is older than ours, so it imports nothing of this project.
The task holds token ids only: the tokenizer is used by nobody here, and all variants are judged on the same tokens.
"""

import importlib
import json
import math
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

#: a model of the other environment's transformers
_Model: TypeAlias = Any
_PACKAGES = ("llmcompressor", "compressed-tensors", "transformers", "torch", "safetensors")


def main(task_path: str, result_path: str) -> None:
    """Quantize, reload, judge and write the result."""
    task = json.loads(Path(task_path).read_text(encoding="utf-8"))
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    started = time.monotonic()
    _quantize(task)
    quantized = time.monotonic()
    model = _load(task["output"], task["evaluation_dtype"], _device())
    result = {
        "perplexity": _perplexity(model, task["evaluation"]),
        "generated_ids": _generate(model, task["prompt_ids"], task["new_tokens"]),
        "versions": {name: version(name) for name in _PACKAGES},
        "device": str(model.device),
        "quantize_seconds": quantized - started,
        "verify_seconds": time.monotonic() - quantized,
    }
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _load(path: str, dtype: str, device: str) -> _Model:
    transformers = importlib.import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return model.to(device).eval()


def _quantize(task: dict[str, Any]) -> None:
    datasets = importlib.import_module("datasets")
    llmcompressor = importlib.import_module("llmcompressor")
    # llmcompressor moves the layers to a device one after the other, so the model stays on the CPU.
    model = _load(task["model"], "auto", "cpu")
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in task["calibration"]]
    llmcompressor.oneshot(
        model=model,
        dataset=datasets.Dataset.from_list(rows),
        recipe=_recipe(task),
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
        max_seq_length=max(map(len, task["calibration"])),
        batch_size=1,
        pipeline="sequential",
        log_dir=None,
    )
    model.save_pretrained(task["output"], save_compressed=True)


def _recipe(task: dict[str, Any]) -> list[Any]:
    settings: dict[str, Any] = {"config_groups": {"group_0": task["scheme"]}, "ignore": task["ignore"]}
    if task["method"] == "gptq":
        gptq = importlib.import_module("llmcompressor.modifiers.gptq")
        return [gptq.GPTQModifier(**settings, **task["options"])]
    transform = importlib.import_module("llmcompressor.modifiers.transform.awq")
    quantization = importlib.import_module("llmcompressor.modifiers.quantization")
    return [transform.AWQModifier(**task["options"]), quantization.QuantizationModifier(**settings)]


@torch.no_grad()
def _perplexity(model: _Model, rows: list[dict[str, list[int]]]) -> float:
    """exp(sum of nll / learned tokens); `learned` are the positions in `ids` whose token counts."""
    total, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([row["ids"]], device=model.device)
        learned = torch.tensor(row["learned"], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0]
        nll = F.cross_entropy(logits[learned - 1].float(), ids[0][learned], reduction="none")
        total += float(nll.double().sum())
        tokens += len(row["learned"])
    return math.exp(min(total / tokens, 700.0))


@torch.no_grad()
def _generate(model: _Model, prompt_ids: list[int], new_tokens: int) -> list[int]:
    ids = torch.tensor([prompt_ids], device=model.device)
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False, pad_token_id=0
    )
    generated: list[int] = out[0, len(prompt_ids) :].tolist()
    return generated


if __name__ == "__main__":
    main(*sys.argv[1:])
