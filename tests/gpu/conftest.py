"""The tiny base and its trials, as the unit tests have them, on CUDA; without a device what asks for it is skipped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainer.conftest import base_folder as base_folder
from tests.unit.trainer.conftest import make_spec as make_spec
from tests.unit.trainer.conftest import row_files as row_files
from tests.unit.trainer.conftest import token_cache as token_cache
from trainer.accounting.devices import prepare_device
from trainer.data.token_cache import TokenCache
from trainer.model.base_model import BaseModel
from trainer.spec import ModelSpec
from trainer.training.engines.resident import ResidentEngine


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return prepare_device(threads=2)


@pytest.fixture
def make_engine(base_folder: Path, token_cache: TokenCache, cuda: torch.device) -> Callable[..., ResidentEngine]:
    def make(**model: Any) -> ResidentEngine:
        return ResidentEngine(
            BaseModel(ModelSpec(**{"path": str(base_folder), "dtype": "float32", **model}), cuda), token_cache
        )

    return make
