"""The GPUs that the workers of this machine share out, as CUDA_VISIBLE_DEVICES names them."""

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

VARIABLE = "CUDA_VISIBLE_DEVICES"
_NONE = ""


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """One name a worker; None if there are none and nobody says so.

    An environment that lists GPUs (by index, UUID, UUID of a MIG part) is taken at its word, up to the first entry that
    names none, as CUDA does: an empty list or -1 hides all. Else all that the driver shows, by UUID: in a container
    the driver counts those that are there from 0, whatever they are called outside.
    """
    listed = environment.get(VARIABLE)
    if listed is None:
        return driver_gpus() or None
    found: list[str] = []
    for entry in (part.strip() for part in listed.split(",")):
        if not (entry.isdecimal() or entry.startswith(("GPU-", "MIG-"))):
            break
        found.append(entry)
    return tuple(found)


def told(gpus: tuple[str, ...] | None, devices: tuple[int, ...]) -> dict[str, str]:
    """What a worker on these devices, counted from 0, is told. Workers beyond the GPUs share them."""
    if gpus is None:
        return {}
    return {VARIABLE: ",".join(gpus[device % len(gpus)] for device in devices) if gpus else _NONE}


def driver_gpus() -> tuple[str, ...]:
    """UUIDs of the GPUs that the NVIDIA driver shows, of their parts where one is cut (MIG); empty without a driver."""
    try:
        nvml: Any = import_module("pynvml")
    except ModuleNotFoundError:
        return ()
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(uuid for handle in handles for uuid in _uuids(nvml, handle))
    except nvml.NVMLError:
        return ()


def _uuids(nvml: Any, gpu: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Of the GPU, or of its parts: a process computes on one part at most."""
    cut = False
    with suppress(nvml.NVMLError):
        cut = nvml.nvmlDeviceGetMigMode(gpu)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    if not cut:
        return (str(nvml.nvmlDeviceGetUUID(gpu)),)
    parts: list[str] = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        with suppress(nvml.NVMLError):
            parts.append(str(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))))
    return tuple(parts)
