"""What is installed for training on this machine, and whether it works together.

`python -m trainer.commands.installation` prints one JSON object, `Installation`. Nothing here fails: what
does not work is told.
"""

import sys
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from trainer.spec.installation import Gpu, Installation, Part


def look() -> Installation:
    """Ask the driver and import everything; takes some seconds."""
    driver, gpus = _driver()
    torch = _part("torch", "torch")
    cuda, visible = _torch() if torch.version and not torch.problem else (None, 0)
    return Installation(
        driver=driver,
        gpus=gpus,
        torch=torch,
        cuda=cuda,
        visible=visible,
        flash_attn=_part("flash-attn", "flash_attn") if visible else Part(version=_version("flash-attn")),
        deepspeed=_deepspeed(),
    )


def _driver() -> tuple[str | None, tuple[Gpu, ...]]:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus = tuple(
            Gpu(name=_text(pynvml.nvmlDeviceGetName(one)), memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(one).total)
            for one in handles
        )
        return _text(pynvml.nvmlSystemGetDriverVersion()), gpus
    except Exception:  # no library, no driver, or a driver that does not answer: there are no GPUs
        return None, ()


def _torch() -> tuple[str | None, int]:
    import torch

    return torch.version.cuda, torch.cuda.device_count() if torch.cuda.is_available() else 0


def _deepspeed() -> Part:
    """Whether its CPU optimizer, for offloading, is compiled already or can be."""
    found = _part("deepspeed", "deepspeed")
    if found.version is None or found.problem:
        return found
    builder = import_module("deepspeed.ops.op_builder").CPUAdamBuilder()
    if builder.is_compatible(verbose=False):
        return found
    return Part(version=found.version, problem="its CPU optimizer, for offloading, cannot be compiled here")


def _part(package: str, module: str) -> Part:
    found = _version(package)
    if found is None:
        return Part()
    try:
        import_module(module)
    except Exception as error:  # libraries that do not fit raise anything
        return Part(version=found, problem=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
    return Part(version=found)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # libraries print while they are imported
        told = look()
    sys.stdout.write(told.model_dump_json() + "\n")
