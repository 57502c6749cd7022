"""The device a worker computes on, and how it is made repeatable."""

import logging
import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from trainer.spec import BITSANDBYTES, CUDA, LLAMA_CPP, Dtype

_NO_REPEATABLE_KERNEL = "does not have a deterministic implementation"
_log = logging.getLogger("trainer.devices")
_SOFTWARE = ("torch", "transformers", "peft", "safetensors", "tokenizers")


def prepare_device(threads: int) -> torch.device:
    """Fix the number of threads and the choice of kernels for this process; the device to use.

    On CUDA an operation without a repeatable kernel fails: see `allow_unrepeatable_kernels`. A mere warning
    (`warn_only`) would not do: torch then takes the unrepeatable backward of flash and of memory-efficient attention,
    and cuDNN's. Told strictly it repeats the first two, so that rows with a mask (packing) and float32 need no whole
    matrix of scores, at the cost of a few percent of speed.
    """
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


def lacks_repeatable_kernel(error: Exception) -> bool:
    """Whether torch refused an operation because it has no repeatable kernel for it."""
    return isinstance(error, RuntimeError) and _NO_REPEATABLE_KERNEL in str(error)


def allow_unrepeatable_kernels(error: Exception) -> None:
    """From now on an operation of this process without a repeatable kernel, as in `error`, runs with another one."""
    _log.warning("a step cannot be repeated bit for bit: %s", str(error).splitlines()[0])
    torch.use_deterministic_algorithms(True, warn_only=True)


def auto_dtype(device: torch.device) -> Dtype:
    """What `model.dtype: auto` is here: bfloat16 where the device computes in it and does not only emulate it."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float32"


@cache
def device_name(device: torch.device) -> str:
    """Model of the device; with the number of threads on a CPU, where that changes the last bits."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def device_uuids(device: torch.device) -> tuple[str, ...]:
    """UUIDs of the NVIDIA GPUs that this process and the other ranks of its group compute on.

    Empty on every other device, and for a group that spans machines: this one cannot see all of its GPUs.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type != "cuda" or torch.version.hip is not None or torch.cuda.device_count() < ranks:
        return ()
    own = torch.cuda.current_device() if device.index is None else device.index
    return tuple(
        str(torch.cuda.get_device_properties(ordinal).uuid) for ordinal in ([own] if ranks == 1 else range(ranks))
    )


def software_versions() -> dict[str, str]:
    """Versions that losses may depend on, and those of what not every worker can do."""
    known = {"python": platform.python_version(), **{name: version(name) for name in _SOFTWARE}}
    known[CUDA] = (torch.version.cuda or torch.version.hip or "") if torch.cuda.is_available() else "none"
    for optional in (LLAMA_CPP, BITSANDBYTES):
        with suppress(PackageNotFoundError):
            known[optional] = version(optional)
    return known


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
