"""`python -m trainer merge`: an adapter merged into its base, on the CPU, proven against the adapter on the base.

Merging streams over the base's files, so that a model larger than memory can be merged and everything the adapter does
not touch keeps its bits. PEFT is the independent judge: it puts the adapter on the base, and its logits are compared
with those of the merged folder.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from trainer.common.errors import UserError
from trainer.data.tokenizer import load_tokenizer
from trainer.export.folders import check_model_folder, check_output, copy_companions, delivery, model_digest, size_bytes
from trainer.export.judge import SAMPLE_TEXTS, EvalRows, Judgement, eval_rows, judge, load_float_model, sample_logits
from trainer.export.lora_file import LoraFile, read_lora
from trainer.export.manifest import MANIFEST, LogitCheck, Manifest, Quality, Recipe, Sources, write_manifest
from trainer.export.merged_weights import dtype_names, merge_weights, refuse_float64

#: largest logit difference, relative to max(1, largest logit), by the coarser of stored and computing type
TOLERANCES = {"float32": 5e-5, "float16": 5e-3, "bfloat16": 4e-2}
_PACKAGES = ("torch", "transformers", "peft", "safetensors")


def merge(options: argparse.Namespace) -> dict[str, Any]:
    """Merge `options.adapter` into `options.model`; the summary that the command prints.

    Raises:
        UserError: base or adapter cannot be merged, the output exists, or the merged model computes something else.
        DataError: the evaluation rows are unusable.
    """
    started = time.monotonic()
    torch.set_num_threads(options.threads)
    base, output = Path(options.model), Path(options.output)
    check_output(output)
    check_model_folder(base)
    if options.dtype is None:
        refuse_float64(base, "name another type with --dtype, such as float32")
    lora = read_lora(Path(options.adapter))
    tokenizer = load_tokenizer(str(base))
    judging = (options.max_length, options.eval_rows, options.format)
    rows = eval_rows(options.eval_data, tokenizer, *judging) if options.eval_data else None
    with delivery(output) as folder:
        merge_weights(base, lora, folder, options.dtype and getattr(torch, options.dtype), options.max_shard_size)
        _write_config(base, folder, options.dtype)
        copy_companions(base, folder)
        check_tokenizer(base, folder, tokenizer)
        merged = time.monotonic()
        logits, judgements = _check(base, lora, folder, tokenizer, rows, options.compute_dtype)
        manifest = Manifest(
            type="merged",
            size_bytes=size_bytes(folder),
            sha256=model_digest(folder),
            sources=Sources(base=model_digest(base), adapter=lora.digest()),
            recipe=_recipe(lora, options),
            quality=rows and Quality.of(rows, options.eval_data, tokenizer, *judgements),
            logits=logits,
            seconds={"merge": merged - started, "verify": time.monotonic() - merged},
        )
        write_manifest(folder, manifest)
    return {
        "output": str(output),
        "manifest": str(output / MANIFEST),
        "size_bytes": manifest.size_bytes,
        **logits.model_dump(),
        **(manifest.quality.model_dump(include={"perplexity_before", "perplexity_after"}) if manifest.quality else {}),
        "seconds": round(time.monotonic() - started, 3),
    }


def check_tokenizer(source: Path, copy: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError unless `copy` tokenizes as `tokenizer`, that of `source`, and has its chat template."""
    kept = load_tokenizer(str(copy))
    same = [kept(text)["input_ids"] == tokenizer(text)["input_ids"] for text in SAMPLE_TEXTS]
    if not all(same) or kept.chat_template != tokenizer.chat_template:
        raise UserError(f"the tokenizer of {source} was not kept: it needs a file that no model folder usually has")


def _write_config(base: Path, folder: Path, dtype: str | None) -> None:
    """The base's configuration with the new dtype; without one it is copied as it is."""
    if dtype is None:
        return
    config = check_model_folder(base)
    config.pop("torch_dtype", None)
    config["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _check(
    base: Path,
    lora: LoraFile,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    rows: EvalRows | None,
    compute_dtype: str,
) -> tuple[LogitCheck, list[Judgement]]:
    """Compare the adapter on the base with the merged folder; one model is in memory at a time. Raises UserError."""
    model: Any = load_float_model(base, compute_dtype)
    plain = sample_logits(model, tokenizer)
    model = PeftModel.from_pretrained(model, str(lora.folder), torch_device="cpu").eval()
    adapted = sample_logits(model, tokenizer)
    judgements = [] if rows is None else [judge(model, rows)]
    del model
    model = load_float_model(folder, compute_dtype)
    merged = sample_logits(model, tokenizer)
    judgements += [] if rows is None else [judge(model, rows)]
    coarsest = max({*dtype_names(folder), compute_dtype}, key=TOLERANCES.__getitem__)
    check = LogitCheck(
        max_difference=_largest([a - b for a, b in zip(adapted, merged, strict=True)]),
        largest_logit=_largest(adapted),
        adapter_effect=_largest([a - b for a, b in zip(adapted, plain, strict=True)]),
        tolerance=TOLERANCES[coarsest],
    )
    check_logits(check, coarsest)
    return check, judgements


def check_logits(check: LogitCheck, dtype: str) -> None:
    """Raises UserError if the merged model computes something else than the adapter on the base.

    Rounding to `dtype` may not move a logit beyond the tolerance, nor by as much as the adapter itself does.
    """
    limit = check.tolerance * max(1.0, check.largest_logit)
    if not check.max_difference <= limit:
        raise UserError(
            f"the merged model differs from the adapter on the base by {check.max_difference:.3g} in a logit, more "
            f"than {limit:.3g} for {dtype}: nothing was written"
        )
    if check.adapter_effect and check.max_difference >= check.adapter_effect:
        raise UserError(
            f"rounding to {dtype} moves logits by {check.max_difference:.3g}, the adapter by "
            f"{check.adapter_effect:.3g} only: merge with --dtype float32"
        )


def _largest(parts: list[torch.Tensor]) -> float:
    return max(float(part.abs().max()) for part in parts)


def _recipe(lora: LoraFile, options: argparse.Namespace) -> Recipe:
    names = ("r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "rank_pattern", "alpha_pattern")
    return Recipe(
        tool="trainer merge",
        versions={name: version(name) for name in _PACKAGES},
        settings={
            "adapter": {name: lora.config.get(name) for name in names},
            "dtype": options.dtype,
            "max_shard_bytes": options.max_shard_size,
            "compute_dtype": options.compute_dtype,
        },
    )
