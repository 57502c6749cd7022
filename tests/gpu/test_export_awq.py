"""AWQ with the real llmcompressor, which needs a GPU."""

import json
from pathlib import Path

import pytest

from tests.exporting import EVAL, TINY, TRAIN, deliver, merged_model


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_awq_in_an_environment_of_its_own(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU")
    merged, output = merged_model(TINY, tmp_path), tmp_path / "out"
    summary = deliver(
        *("quantize", "--model", merged, "--type", "awq-w4a16", "-o", output, "--eval-data", EVAL),
        *("--calibration", TRAIN, "--calibration-rows", "64"),
    )
    manifest = json.loads((output / "manifest.json").read_text())
    weights = json.loads((output / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    assert (weights["weights"]["num_bits"], weights["weights"]["symmetric"]) == (4, False)
    assert (output / "model.safetensors").stat().st_size < 0.5 * (merged / "model.safetensors").stat().st_size
    assert summary["perplexity_after"] == pytest.approx(summary["perplexity_before"], rel=0.1)
    assert manifest["details"]["device"].startswith("cuda")
