"""What a device is computed on in, and which kernels may be used there."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from trainer.accounting.devices import (
    allow_unrepeatable_kernels,
    auto_dtype,
    lacks_repeatable_kernel,
    prepare_device,
)
from trainer.common.environment import PROCESS_ENVIRONMENT

_cuda: Any = torch.backends.cuda


@pytest.fixture
def kernels() -> Iterator[None]:
    """Leaves torch's choice of kernels as it was."""
    threads, cudnn = torch.get_num_threads(), _cuda.cudnn_sdp_enabled()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    _cuda.enable_cudnn_sdp(cudnn)


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "dtype"),
    [("cpu", True, "float32"), ("cuda", True, "bfloat16"), ("cuda", False, "float32")],
)
def test_auto_is_bfloat16_where_a_gpu_computes_in_it(
    device: str, has_bfloat16: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def supported(*, including_emulation: bool) -> bool:
        asked.append(including_emulation)
        return has_bfloat16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert auto_dtype(torch.device(device)) == dtype
    assert asked == ([False] if device == "cuda" else [])


@pytest.mark.usefixtures("kernels")
def test_on_cuda_no_kernel_is_left_whose_backward_cannot_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning would not do: with it torch takes the unrepeatable backward of flash and memory-efficient attention."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    prepare_device(1)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not _cuda.cudnn_sdp_enabled()
    assert PROCESS_ENVIRONMENT["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("kernels")
def test_an_operation_without_a_repeatable_kernel_is_known_and_can_be_allowed() -> None:
    torch.use_deterministic_algorithms(True)
    refused = RuntimeError("histc_cuda does not have a deterministic implementation, but you set 'use_...'")
    assert lacks_repeatable_kernel(refused)
    assert not lacks_repeatable_kernel(RuntimeError("a kernel has a bug"))
    allow_unrepeatable_kernels(refused)
    assert torch.is_deterministic_algorithms_warn_only_enabled()
