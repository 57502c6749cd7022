"""Models that cannot be used are refused with a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.accounting.meter import ModelShape
from trainer.common.errors import UserError
from trainer.model.base_model import BaseModel
from trainer.spec import ModelSpec

CPU = torch.device("cpu")


@pytest.fixture
def copied(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "copy"))


def set_auto_map(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


def drop_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def unknown_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "martian"}')


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (set_auto_map, "wants to run its own code"),
        (drop_weights, "has no safetensors weights"),
        (cut_weights, "cannot be loaded"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds adapter_config.json"),
        (drop_tokenizer, "tokenizer of .* cannot be loaded"),
        (unknown_type, "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (shutil.rmtree, "is not a folder"),
    ],
)
def test_unusable_folders(copied: Path, harm: Callable[[Path], object], problem: str) -> None:
    harm(copied)
    with pytest.raises(UserError, match=problem) as caught:
        BaseModel(ModelSpec(path=str(copied)), CPU)
    assert "\n" not in str(caught.value)


def test_the_digest_names_the_weights(base_folder: Path, copied: Path) -> None:
    first, second = (BaseModel(ModelSpec(path=str(path)), CPU) for path in (base_folder, copied))
    assert first.digest == second.digest
    assert BaseModel(ModelSpec(path=str(copied), dtype="bfloat16"), CPU).digest != first.digest


def test_the_shape_of_the_model_is_read_from_it(base_folder: Path) -> None:
    shape = BaseModel(ModelSpec(path=str(base_folder)), CPU).shape
    per_layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128
    assert shape == ModelShape(
        matmul_parameters=2 * per_layer + 64 * 320, head_parameters=64 * 320, layers=2, attention_width=64
    )
