"""GGUF variants: llama.cpp's own converter and quantizer, judged by llama.cpp on the CPU."""

import ctypes
import importlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.common.errors import UserError
from trainer.export.judge import NEW_TOKENS, SAMPLE_TEXTS, EvalRows, Judgement
from trainer.export.tools import CONVERTER_REQUIREMENTS, ToolError, Tools, run_logged
from trainer.export.variant import Variant

#: llama.cpp's names of the file types that it quantizes to
_FILE_TYPES = {
    "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "q5_k_m": "LLAMA_FTYPE_MOSTLY_Q5_K_M",
}
#: what a model is converted to before it is quantized: nothing is lost on the way
_LOSSLESS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
#: llama_cpp.Llama, of a package that may be missing
_Llama: TypeAlias = Any
_PACKAGES = ("llama_cpp_python", "torch", "transformers", "sentencepiece")


@dataclass(frozen=True)
class GgufRequest:
    """A merged model in `model`, whose weights are of `dtype`, to become `type` in `output`."""

    model: Path
    dtype: str
    type: str
    output: Path
    threads: int


def check_gguf_runs() -> None:
    """Raises UserError unless llama.cpp can be imported."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise UserError("GGUF needs llama.cpp: pip install 'hpo-service[gguf]' (it is compiled, which takes minutes)")


def make_gguf(request: GgufRequest, tools: Tools, rows: EvalRows, texts_ids: Sequence[list[int]]) -> Variant:
    """Convert, quantize and judge; `texts_ids` are the sample texts as the model's own tokenizer reads them.

    Raises:
        ToolError: converter or quantizer failed.
        UserError: llama.cpp reads texts differently from the model's tokenizer.
    """
    started = time.monotonic()
    script = tools.converter()
    ready = time.monotonic()
    final = request.output / f"model-{request.type}.gguf"
    file_type = _FILE_TYPES.get(request.type)
    whole = final if file_type is None else request.output / "unquantized.gguf"
    outtype = "f16" if file_type is None else _LOSSLESS[request.dtype]
    # The child imports nothing of this project; PYTHONPATH could only put something in its way.
    run_logged(convert_command(script, request.model, whole, outtype), tools.log("convert"), {"PYTHONPATH": ""})
    converted = time.monotonic()
    if file_type is not None:
        _quantize(whole, final, file_type, request.threads)
        whole.unlink()
    quantized = time.monotonic()
    judgement = _judge(final, rows, texts_ids, request.threads)
    return Variant(
        judgement=judgement,
        tool="llama.cpp",
        versions={name: version(name) for name in _PACKAGES},
        settings={
            "outtype": outtype,
            "file_type": file_type,
            "converter": _converter_source(),
        },
        details={"tensor_types": _tensor_types(final)},
        seconds={
            "tools": ready - started,
            "convert": converted - ready,
            "quantize": quantized - converted,
            "verify": time.monotonic() - quantized,
        },
    )


def convert_command(script: Path, model: Path, target: Path, outtype: str) -> list[str]:
    """llama.cpp's converter on a model folder."""
    return [sys.executable, str(script), str(model), "--outfile", str(target), "--outtype", outtype]


def _converter_source() -> str:
    """The requirement that pins the converter, with its digest."""
    return CONVERTER_REQUIREMENTS.read_text(encoding="utf-8").splitlines()[-1]


def _quantize(source: Path, target: Path, file_type: str, threads: int) -> None:
    llama: Any = importlib.import_module("llama_cpp")
    parameters = llama.llama_model_quantize_default_params()
    parameters.nthread = threads
    parameters.ftype = getattr(llama, file_type)
    status = llama.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters))
    if status:
        raise ToolError(f"llama.cpp could not quantize to {file_type}: status {status}")


def _judge(path: Path, rows: EvalRows, texts_ids: Sequence[list[int]], threads: int) -> Judgement:
    """Perplexity and greedy text of a GGUF file on the CPU, once it reads the sample texts right. Raises UserError."""
    llama: Any = importlib.import_module("llama_cpp")
    context = max(rows.longest_tokens, len(rows.prompt_ids) + NEW_TOKENS)
    model = llama.Llama(
        model_path=str(path),
        n_ctx=context,
        n_gpu_layers=0,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        verbose=False,
    )
    for text, expected in zip(SAMPLE_TEXTS, texts_ids, strict=True):
        if (found := model.tokenize(text.encode(), add_bos=True, special=True)) != expected:
            raise UserError(
                f"llama.cpp reads {text[:40]!r} as {found[:8]}, the model's tokenizer as {expected[:8]}: the "
                "converter does not know this tokenizer"
            )

    def logits_of(ids: Sequence[int]) -> NDArray[np.float32]:
        model.reset()
        model.eval(list(ids))
        scores: NDArray[np.float32] = model.scores[: len(ids)]
        return scores

    try:
        return Judgement(rows.perplexity(logits_of), _generate(model, rows.prompt_ids))
    finally:
        model.close()


def _generate(model: _Llama, prompt_ids: list[int]) -> tuple[int, ...]:
    model.reset()
    generated: list[int] = []
    for token in model.generate(prompt_ids, temp=0.0):
        generated.append(token)
        if token == model.token_eos() or len(generated) == NEW_TOKENS:
            break
    return tuple(generated)


def _tensor_types(path: Path) -> dict[str, int]:
    """How many tensors are stored in which type: some do not fit the blocks of the type that was asked for."""
    gguf: Any = importlib.import_module("gguf")
    types = [tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors]
    return {name: types.count(name) for name in sorted(set(types))}
