"""What can be seen of a model and its data without reading them."""

import json
from pathlib import Path

from hpo_service.services.data.profile import read_traits
from tests import serving

ROOT = Path(__file__).resolve().parents[4]


def write_weights(path: Path, shapes: dict[str, list[int]]) -> None:
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded)


def test_parameters_are_counted_over_all_files_of_a_model(tmp_path: Path) -> None:
    serving.make_inputs(tmp_path)
    model, train = tmp_path / "model", tmp_path / "train.jsonl"
    assert read_traits(model, train, serving.ROWS).model_parameters is None
    (model / "model.safetensors").unlink()
    write_weights(model / "model-1.safetensors", {"a": [3, 4], "b": [5]})
    write_weights(model / "model-2.safetensors", {"c": []})
    traits = read_traits(model, train, serving.ROWS)
    assert traits.model_parameters == 3 * 4 + 5 + 1
    assert traits.architecture == "llama"
    assert traits.row_bytes == round(train.stat().st_size / serving.ROWS, 3)


def test_the_tiny_model_that_ships_with_us() -> None:
    examples = ROOT / "examples"
    traits = read_traits(examples / "tiny-llama", examples / "wordnet-instruct" / "train.jsonl", 1000)
    assert traits.architecture == "LlamaForCausalLM"
    assert traits.model_parameters is not None
    assert traits.model_parameters > 10_000
