"""GPTQ and AWQ variants (4-bit weights, 16-bit activations) by llmcompressor, in its own environment, for vLLM."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.common.errors import UserError
from trainer.data.row_encoding import Encoded
from trainer.export.folders import copy_companions
from trainer.export.judge import NEW_TOKENS, EvalRows, Judgement, learned_positions
from trainer.export.tools import Tools, run_logged
from trainer.export.variant import Variant

_TASK = Path(__file__).with_name("llmcompressor_task.py")
#: widths of a group of weights that share a scale and that vLLM's kernels know, the usual one first
_GROUP_SIZES = (128, 64, 32)
#: llmcompressor's settings: GPTQ is symmetric; AWQ asymmetric with scales by activations and weights
_METHODS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "gptq-w4a16": ("gptq", True, {"block_size": 128, "dampening_frac": 0.01, "actorder": "static"}),
    "awq-w4a16": ("awq", False, {"duo_scaling": True, "n_grid": 20}),
}


@dataclass(frozen=True)
class CompressionRequest:
    """A merged model in `model` to become `type` in `output`.

    `head` is the name of the output head, which stays as it is; `widths` are the input widths of all other linear
    layers. The result is judged computing in `compute_dtype`.
    """

    model: Path
    type: str
    output: Path
    head: str
    widths: frozenset[int]
    calibration: tuple[Encoded, ...]
    compute_dtype: str
    threads: int


def check_compression_runs(variant_type: str) -> None:
    """Raises UserError where AWQ is wanted and there is no GPU."""
    if variant_type == "awq-w4a16" and not torch.cuda.is_available():
        raise UserError(
            "awq-w4a16 needs a CUDA GPU and torch sees none here; gptq-w4a16 has the same size and runs on the CPU"
        )


def group_size(widths: Iterable[int]) -> int:
    """The largest group that divides every width. Raises UserError if none does."""
    distinct = sorted(set(widths))
    for size in _GROUP_SIZES:
        if all(width % size == 0 for width in distinct):
            return size
    raise UserError(f"groups of {_GROUP_SIZES} weights do not fit layers that are {distinct} wide; use a GGUF type")


def compression_task(request: CompressionRequest, rows: EvalRows) -> dict[str, Any]:
    """What the child in the other environment is told: settings and token ids."""
    method, symmetric, settings = _METHODS[request.type]
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": symmetric,
        "strategy": "group",
        "group_size": group_size(request.widths),
    }
    return {
        "model": str(request.model.absolute()),
        "output": str(request.output.absolute()),
        "method": method,
        "options": settings,
        "scheme": {"targets": ["Linear"], "weights": weights},
        "ignore": [request.head],
        "calibration": [row.ids.tolist() for row in request.calibration],
        "evaluation": [{"ids": row.ids.tolist(), "learned": learned_positions(row).tolist()} for row in rows.rows],
        "evaluation_dtype": request.compute_dtype,
        "prompt_ids": rows.prompt_ids,
        "new_tokens": NEW_TOKENS,
        "threads": request.threads,
    }


def make_compressed(request: CompressionRequest, tools: Tools, rows: EvalRows, scratch: Path) -> Variant:
    """Quantize with llmcompressor and judge what it wrote, reloaded; files to and from the child go to `scratch`.

    Raises:
        UserError: the layers do not fit 4-bit groups.
        ToolError: the environment cannot be made, or llmcompressor failed.
    """
    task = compression_task(request, rows)
    started = time.monotonic()
    python = tools.llmcompressor_python()
    ready = time.monotonic()
    task_file, result_file = scratch / "task.json", scratch / "result.json"
    task_file.write_text(json.dumps(task), encoding="utf-8")
    environment = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(request.threads)}
    run_logged([str(python), str(_TASK), str(task_file), str(result_file)], tools.log(request.type), environment)
    result = json.loads(result_file.read_text(encoding="utf-8"))
    for code in request.output.glob("*.py"):
        code.unlink()  # llmcompressor copies code that lies beside the model
    copy_companions(request.model, request.output)
    settings = {name: task[name] for name in ("method", "options", "scheme", "ignore")}
    return Variant(
        judgement=Judgement(result["perplexity"], tuple(result["generated_ids"])),
        tool="llmcompressor",
        versions=result["versions"],
        settings={**settings, "calibration_rows": len(request.calibration)},
        details={"device": result["device"]},
        seconds={
            "tools": ready - started,
            "quantize": result["quantize_seconds"],
            "verify": result["verify_seconds"],
        },
    )
