"""The device a worker computes on, and how it is made repeatable."""

import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from trainer.spec import LLAMA_CPP

_SOFTWARE = ("torch", "transformers", "peft", "safetensors", "tokenizers")


def prepare_device(threads: int) -> torch.device:
    """Fix the number of threads and the choice of kernels for this process; the device to use."""
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


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
    with suppress(PackageNotFoundError):
        known[LLAMA_CPP] = version(LLAMA_CPP)
    return known


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
