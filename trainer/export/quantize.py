"""`python -m trainer quantize`: a smaller variant of a merged model, judged against it before it is delivered."""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.common.errors import UserError
from trainer.data.row_encoding import Encoded
from trainer.data.tokenizer import load_tokenizer
from trainer.export.compressed import CompressionRequest, check_compression_runs, make_compressed
from trainer.export.folders import check_model_folder, check_output, delivery, files_digest, model_digest, size_bytes
from trainer.export.gguf import GgufRequest, check_gguf_runs, make_gguf
from trainer.export.judge import SAMPLE_TEXTS, EvalRows, Judgement, eval_rows, judge, load_float_model, rows_digest
from trainer.export.manifest import MANIFEST, Manifest, Quality, Recipe, Sources, read_manifest, write_manifest
from trainer.export.merged_weights import dtype_names, refuse_float64
from trainer.export.tools import Tools
from trainer.export.variant import Variant

#: largest perplexity of a variant relative to the merged model's. It stops a variant that is broken, not one that lost
#: quality: SmolLM2-135M, whose layers do not fit k-quant blocks, was measured at 1.15 (q4_k_m) and 1.19 (q5_k_m).
PERPLEXITY_LIMITS = {
    "f16": 1.02,
    "q8_0": 1.05,
    "q5_k_m": 1.5,
    "q4_k_m": 1.5,
    "gptq-w4a16": 1.5,
    "awq-w4a16": 1.5,
}
_CALIBRATED = ("gptq-w4a16", "awq-w4a16")


@dataclass(frozen=True)
class _Original:
    """The merged model as far as its variants need to know it."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    judgement: Judgement
    dtype: str
    head: str
    widths: frozenset[int]


def quantize(options: argparse.Namespace) -> dict[str, Any]:
    """Make the variant `options.type` of `options.model`; the summary that the command prints.

    Raises:
        UserError: the model cannot become this type, the output exists, or the variant is not good enough.
        DataError: evaluation or calibration rows are unusable.
        ToolError: a tool could not be made ready or failed.
    """
    started = time.monotonic()
    torch.set_num_threads(options.threads)
    model, output = Path(options.model), Path(options.output)
    check_options(options)
    check_output(output)
    check_model_folder(model)
    refuse_float64(model, "merge it again with --dtype float32")
    tokenizer = load_tokenizer(str(model))
    rows = eval_rows(options.eval_data, tokenizer, options.max_length, options.eval_rows, options.format)
    calibration = _calibration(options, tokenizer)
    original = _judged(model, tokenizer, rows, options.compute_dtype)
    judged = time.monotonic()
    with delivery(output) as folder:
        variant = _make(options, original, rows, calibration, folder)
        check_perplexity(options.type, original.judgement.perplexity, variant.judgement.perplexity)
        manifest = _manifest(options, original, rows, variant, folder)
        manifest.seconds["judge_merged"] = judged - started
        write_manifest(folder, manifest)
    assert manifest.quality is not None
    return {
        "output": str(output),
        "manifest": str(output / MANIFEST),
        "type": options.type,
        "size_bytes": manifest.size_bytes,
        **manifest.quality.model_dump(exclude={"evaluation_sha256", "prompt"}),
        "seconds": round(time.monotonic() - started, 3),
    }


def check_options(options: argparse.Namespace) -> None:
    """Raises UserError where type, machine and calibration rows do not go together."""
    if options.type not in _CALIBRATED:
        if options.calibration:
            raise UserError(f"{options.type} needs no calibration; leave out --calibration")
        check_gguf_runs()
        return
    check_compression_runs(options.type)
    if not options.calibration:
        raise UserError(f"{options.type} needs --calibration, rows to tune the rounding on, such as the training rows")
    if rows_digest(options.calibration) == rows_digest(options.eval_data):
        raise UserError("calibration and evaluation rows are the same; the variant would look better than it is")


def check_perplexity(variant_type: str, before: float, after: float) -> None:
    """Raises UserError if a variant is so much worse than the merged model that it must be broken."""
    limit = PERPLEXITY_LIMITS[variant_type]
    if not (math.isfinite(after) and after <= limit * before):
        raise UserError(
            f"{variant_type} has perplexity {after:.4g}, more than {limit} times the {before:.4g} of the merged model: "
            "nothing was written; use a type with more bits"
        )


def _calibration(options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> tuple[Encoded, ...]:
    if options.type not in _CALIBRATED:
        return ()
    limits = (options.max_length, options.calibration_rows, options.format)
    return eval_rows(options.calibration, tokenizer, *limits).rows


def _judged(folder: Path, tokenizer: PreTrainedTokenizerBase, rows: EvalRows, compute_dtype: str) -> _Original:
    model = load_float_model(folder, compute_dtype)
    head = _head_name(model)
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear) and name != head]
    return _Original(
        folder=folder,
        tokenizer=tokenizer,
        judgement=judge(model, rows),
        dtype=max(dtype_names(folder), key=lambda name: getattr(torch, name).itemsize),
        head=head,
        widths=frozenset(part.in_features for _, part in linear),
    )


def _head_name(model: PreTrainedModel) -> str:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return next((name for name, part in model.named_modules() if part is head), "lm_head")


def _make(
    options: argparse.Namespace, original: _Original, rows: EvalRows, calibration: tuple[Encoded, ...], folder: Path
) -> Variant:
    tools = Tools(options.tools_dir)
    if options.type not in _CALIBRATED:
        texts_ids = [original.tokenizer(text)["input_ids"] for text in SAMPLE_TEXTS]
        gguf = GgufRequest(original.folder, original.dtype, options.type, folder, options.threads)
        return make_gguf(gguf, tools, rows, texts_ids)
    request = CompressionRequest(
        model=original.folder,
        type=options.type,
        output=folder,
        head=original.head,
        widths=original.widths,
        calibration=calibration,
        compute_dtype=options.compute_dtype,
        threads=options.threads,
    )
    with tempfile.TemporaryDirectory() as scratch:
        return make_compressed(request, tools, rows, Path(scratch))


def _manifest(
    options: argparse.Namespace, original: _Original, rows: EvalRows, variant: Variant, folder: Path
) -> Manifest:
    merged = read_manifest(original.folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Manifest(
        type=options.type,
        size_bytes=size_bytes(folder),
        sha256=files_digest(folder, files),
        sources=Sources(
            base=merged and merged.sources.base,
            adapter=merged and merged.sources.adapter,
            merged=model_digest(original.folder),
            calibration=rows_digest(options.calibration) if options.calibration else None,
        ),
        recipe=Recipe(tool=variant.tool, versions=variant.versions, settings=variant.settings),
        quality=Quality.of(rows, options.eval_data, original.tokenizer, original.judgement, variant.judgement),
        details=variant.details,
        seconds=variant.seconds,
    )
