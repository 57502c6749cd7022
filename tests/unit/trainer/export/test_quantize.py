"""Quantizing up to the tools: which options fit, what the tools are told, and how a variant is judged."""

import importlib.util
import json
import math
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.__main__ import main
from trainer.common.errors import DataError, UserError
from trainer.export import compressed
from trainer.export.compressed import CompressionRequest, compression_task, group_size
from trainer.export.gguf import convert_command
from trainer.export.judge import EvalRows, eval_rows, judge, load_float_model, rows_digest
from trainer.export.manifest import MANIFEST, read_manifest
from trainer.export.quantize import PERPLEXITY_LIMITS, check_options, check_perplexity


@pytest.fixture
def rows(base_folder: Path, row_files: tuple[Path, Path]) -> EvalRows:
    return eval_rows(str(row_files[1]), AutoTokenizer.from_pretrained(base_folder), 128, 6)


@pytest.fixture
def options(row_files: tuple[Path, Path]) -> Callable[..., Namespace]:
    train, held_out = map(str, row_files)

    def make(variant_type: str, **values: Any) -> Namespace:
        calibration = train if "w4a16" in variant_type else None
        return Namespace(**{"type": variant_type, "calibration": calibration, "eval_data": held_out, **values})

    return make


def child() -> ModuleType:
    """The script that runs in the other environment."""
    spec = importlib.util.spec_from_file_location("task", compressed._TASK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_perplexity_is_over_all_response_tokens(base_folder: Path, rows: EvalRows) -> None:
    model = load_float_model(base_folder, "float32")
    total, tokens = 0.0, 0
    for row in rows.rows:
        ids = torch.from_numpy(row.ids).long()[None]
        labels = torch.full_like(ids, -100)
        labels[0, row.spans[0] :] = ids[0, row.spans[0] :]
        learned = int((labels >= 0).sum())
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * learned
        tokens += learned
    assert rows.tokens == tokens
    judgement = judge(model, rows)
    assert judgement.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-5)
    assert 1 <= len(judgement.generated_ids) <= 16


def test_the_other_environments_loop_gives_the_same(base_folder: Path, rows: EvalRows) -> None:
    request = CompressionRequest(
        base_folder, "gptq-w4a16", base_folder / "x", "lm_head", frozenset({64}), rows.rows, "float32", 1
    )
    task = json.loads(json.dumps(compression_task(request, rows)))
    model = load_float_model(base_folder, "float32")
    ours = judge(model, rows)
    assert child()._perplexity(model, task["evaluation"]) == pytest.approx(ours.perplexity, rel=1e-6)
    assert tuple(child()._generate(model, task["prompt_ids"], task["new_tokens"])) == ours.generated_ids


def test_the_task_for_llmcompressor(rows: EvalRows, tmp_path: Path) -> None:
    def task(variant_type: str) -> dict[str, Any]:
        request = CompressionRequest(
            tmp_path, variant_type, tmp_path / "out", "lm_head", frozenset({576, 1536}), rows.rows, "bfloat16", 3
        )
        return compression_task(request, rows)

    gptq, awq = task("gptq-w4a16"), task("awq-w4a16")
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 64}
    assert gptq["scheme"] == {"targets": ["Linear"], "weights": weights}
    assert awq["scheme"] == {"targets": ["Linear"], "weights": {**weights, "symmetric": False}}
    assert (gptq["method"], awq["method"], gptq["ignore"], gptq["threads"]) == ("gptq", "awq", ["lm_head"], 3)
    assert gptq["calibration"] == [row.ids.tolist() for row in rows.rows]
    assert gptq["evaluation"][0]["learned"] == list(range(rows.rows[0].spans[0], len(rows.rows[0].ids)))
    assert Path(gptq["output"]).is_absolute()


def test_groups_fit_every_layer() -> None:
    assert group_size([4096, 11008]) == 128
    assert group_size([576, 1536]) == 64
    assert group_size([96]) == 32
    with pytest.raises(UserError, match=r"do not fit layers that are \[100, 128\] wide; use a GGUF type"):
        group_size([128, 100])


def test_options_that_do_not_go_together(options: Callable[..., Namespace]) -> None:
    check_options(options("gptq-w4a16"))
    with pytest.raises(UserError, match="q8_0 needs no calibration"):
        check_options(options("q8_0", calibration="x.jsonl"))
    with pytest.raises(UserError, match="needs --calibration"):
        check_options(options("gptq-w4a16", calibration=None))
    same = options("gptq-w4a16").eval_data
    with pytest.raises(UserError, match="rows are the same"):
        check_options(options("gptq-w4a16", calibration=same))
    with pytest.raises(DataError):
        check_options(options("gptq-w4a16", calibration="nowhere.jsonl"))


def test_awq_is_refused_without_a_gpu(
    options: Callable[..., Namespace], base_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = options("awq-w4a16")
    arguments = ["--model", str(base_folder), "--type", "awq-w4a16", "-o", str(tmp_path / "out")]
    arguments += ["--eval-data", wanted.eval_data, "--calibration", wanted.calibration, "--threads", "1"]
    with pytest.raises(UserError, match="needs a CUDA GPU and torch sees none here; gptq-w4a16"):
        check_options(wanted)
    assert main(["quantize", *arguments, "--tools-dir", str(tmp_path / "tools")]) == 1
    assert not list(tmp_path.iterdir())


def test_float64_is_refused_before_anything_is_judged(
    options: Callable[..., Namespace],
    base_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("trainer.export.quantize.check_gguf_runs", lambda: None)
    model = Path(shutil.copytree(base_folder, tmp_path / "model"))
    wide = {name: weight.double() for name, weight in load_file(model / "model.safetensors").items()}
    save_file(wide, model / "model.safetensors", metadata={"format": "pt"})
    arguments = ["--model", str(model), "--type", "q8_0", "-o", str(tmp_path / "out")]
    assert main(["quantize", *arguments, "--eval-data", options("q8_0").eval_data]) == 1
    assert "has float64 weights, which no variant keeps; merge it again with --dtype" in capsys.readouterr().err


def test_gguf_without_llama_cpp_names_the_extra(
    options: Callable[..., Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.export.gguf.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'hpo-service\[gguf\]'"):
        check_options(options("q4_k_m"))


def test_a_variant_that_is_much_worse_is_refused() -> None:
    for variant_type, limit in PERPLEXITY_LIMITS.items():
        check_perplexity(variant_type, 10.0, 10.0 * limit)
        with pytest.raises(UserError, match=f"{variant_type} has perplexity .*times the 10 of the merged model"):
            check_perplexity(variant_type, 10.0, 10.1 * limit)
    with pytest.raises(UserError, match="perplexity inf"):
        check_perplexity("q8_0", 10.0, math.inf)


def test_the_converters_command() -> None:
    command = convert_command(Path("/c/convert_hf_to_gguf.py"), Path("m"), Path("o/a.gguf"), "bf16")
    assert command[1:] == ["/c/convert_hf_to_gguf.py", "m", "--outfile", "o/a.gguf", "--outtype", "bf16"]


def test_rows_in_shards_have_a_digest(row_files: tuple[Path, Path], tmp_path: Path) -> None:
    for number, file in enumerate(row_files):
        (tmp_path / f"{number}.jsonl").write_bytes(file.read_bytes())
    first = rows_digest(str(tmp_path))
    (tmp_path / "0.jsonl").rename(tmp_path / "2.jsonl")
    assert rows_digest(str(tmp_path)) != first


def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / MANIFEST).write_text('{"type": "merged"}')
    with pytest.raises(UserError, match="is no manifest of a delivered model"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["merge", "--model", "m", "--adapter", "a", "-o", "o", "--max-shard-size", "5"],
        ["merge", "--model", "m", "--adapter", "a", "-o", "o", "--max-shard-size", "0GB"],
        ["quantize", "--model", "m", "--type", "q3", "-o", "o", "--eval-data", "e"],
        ["quantize", "--model", "m", "--type", "f16", "-o", "o"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_model_that_is_quantized_already_is_refused(
    base_folder: Path, row_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    model.save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": {}}))
    arguments = ["--model", str(tmp_path / "model"), "--type", "gptq-w4a16", "-o", str(tmp_path / "out")]
    arguments += ["--eval-data", str(row_files[1]), "--calibration", str(row_files[0])]
    assert main(["quantize", *arguments]) == 1
    assert "is quantized already; name the model that it was made from" in capsys.readouterr().err
