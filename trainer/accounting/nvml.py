"""GPUs as the NVIDIA driver sees them: energy counter and health, through nvidia-ml-py.

Nothing here fails: a machine without the driver has no GPUs, and what a GPU or driver does not tell is None.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import pynvml
from pynvml import NVMLError

from trainer.spec import DeviceHealth, Notice, worsened

T = TypeVar("T")

_THROTTLING = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "hw_power_brake",
}
_RETIREMENT_CAUSES = (
    pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
    pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
)
_MOST_EVENTS = 64


class Gpus:
    """Some GPUs of this machine, by UUID; XIDs are collected from here on."""

    def __init__(self, uuids: Iterable[str]) -> None:
        """Look the GPUs up. One that the driver does not know is kept, and tells nothing."""
        wanted = tuple(uuids)
        self._gpus = tuple(_Gpu(uuid) for uuid in wanted) if wanted and _initialized() else ()

    def energy_joules(self) -> float | None:
        """Energy of all of them together since the driver was loaded; None if one does not count it alone (MIG)."""
        if not self._gpus:
            return None
        total = 0.0
        for gpu in self._gpus:
            joules = gpu.energy_joules()
            if joules is None:
                return None
            total += joules
        return total

    def health(self) -> tuple[DeviceHealth, ...]:
        """How each of them is now. XIDs are told once."""
        return tuple(gpu.health() for gpu in self._gpus)


class HealthWatch:
    """Remembers the last look at some GPUs, so that everything that gets worse is told once."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus
        self._last: dict[str, DeviceHealth] = {}

    def look(self) -> tuple[Notice, ...]:
        """What got worse since the last look; at the first one, what asks for a person."""
        notices = []
        for now in self._gpus.health():
            notice = worsened(self._last.get(now.uuid), now)
            self._last[now.uuid] = now
            if notice is not None:
                notices.append(notice)
        return tuple(notices)


class _Gpu:
    def __init__(self, uuid: str) -> None:
        self._uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        self._lost = False
        self._handle: Any = None
        self._events: Any = None
        self._handle = self._asked(lambda _: pynvml.nvmlDeviceGetHandleByUUID(self._uuid))
        if self._handle is not None:
            self._events = self._asked(_watch_xids)
        self._counts_alone = self._handle is not None and not self._is_cut()

    def energy_joules(self) -> float | None:
        if not self._counts_alone:
            return None
        millijoules = self._asked(pynvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1000

    def health(self) -> DeviceHealth:
        if self._handle is None:
            return DeviceHealth(uuid=self._uuid, lost=self._lost)
        remapped = self._asked(pynvml.nvmlDeviceGetRemappedRows)
        retiring = self._asked(pynvml.nvmlDeviceGetRetiredPagesPendingStatus)
        return DeviceHealth(
            uuid=self._uuid,
            name=self._asked(pynvml.nvmlDeviceGetName) or "",
            temperature_celsius=self._asked(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
            slowdown_celsius=self._asked(
                pynvml.nvmlDeviceGetTemperatureThreshold, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
            ),
            throttling=self._throttling(),
            ecc_uncorrected_volatile=self._uncorrected(pynvml.NVML_VOLATILE_ECC),
            ecc_uncorrected_aggregate=self._uncorrected(pynvml.NVML_AGGREGATE_ECC),
            remapped_rows=remapped and remapped[0] + remapped[1],
            remapping_pending=None if remapped is None else bool(remapped[2]),
            remapping_failed=None if remapped is None else bool(remapped[3]),
            retired_pages=self._retired_pages(),
            retirement_pending=None if retiring is None else bool(retiring),
            xids=self._new_xids(),
            lost=self._lost,
        )

    def _asked(self, question: Callable[..., T], *arguments: object) -> T | None:
        """The driver's answer; None if there is none."""
        try:
            return question(self._handle, *arguments)
        except NVMLError as error:
            self._lost |= error.value == pynvml.NVML_ERROR_GPU_IS_LOST
            return None

    def _is_cut(self) -> bool:
        """Whether this GPU is cut into parts (MIG), on which others may compute."""
        if self._uuid.startswith("MIG-"):
            return True
        mode = self._asked(pynvml.nvmlDeviceGetMigMode)
        return mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE

    def _throttling(self) -> tuple[str, ...]:
        reasons = self._asked(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
        return tuple(name for bit, name in _THROTTLING.items() if reasons & bit)

    def _uncorrected(self, period: int) -> int | None:
        return self._asked(pynvml.nvmlDeviceGetTotalEccErrors, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, period)

    def _retired_pages(self) -> int | None:
        counts = [self._asked(_count_retired_pages, cause) for cause in _RETIREMENT_CAUSES]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def _new_xids(self) -> tuple[int, ...]:
        xids: list[int] = []
        while self._events is not None and len(xids) < _MOST_EVENTS:
            event = self._asked(lambda _: pynvml.nvmlEventSetWait_v2(self._events, 0))
            if event is None:
                break
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                xids.append(int(event.eventData))
        return tuple(xids)


def _initialized() -> bool:
    try:
        pynvml.nvmlInit()
    except NVMLError:
        return False
    return True


def _watch_xids(handle: object) -> object:
    events = pynvml.nvmlEventSetCreate()
    try:
        pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
    except NVMLError:
        with suppress(NVMLError):
            pynvml.nvmlEventSetFree(events)
        raise
    return events


def _count_retired_pages(handle: object, cause: int) -> int:
    return len(pynvml.nvmlDeviceGetRetiredPages(handle, cause))
