"""The health of one GPU, and what got worse between two looks at it."""

from trainer.spec.base import Frozen
from trainer.spec.usage import Notice

#: Reasons for a lower clock that mean heat, a failing power supply or a fault; power capping and idling are normal.
ALARMING_THROTTLING = frozenset({"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake", "sw_thermal_slowdown"})

#: XIDs that a program can cause by itself (an illegal access, an endless kernel, what is cleaned up after another), and
#: 63: a memory row or page was replaced, which is how the device mends itself. All others mean that it is broken.
HARMLESS_XIDS = frozenset({13, 31, 43, 45, 63})

_COUNTERS = {
    "ecc_uncorrected_volatile": "uncorrected memory errors since the driver was loaded",
    "ecc_uncorrected_aggregate": "uncorrected memory errors in its life",
    "remapped_rows": "remapped memory rows",
    "retired_pages": "retired memory pages",
}
_FLAGS = {
    "remapping_pending": "rows wait for a reset to be remapped",
    "remapping_failed": "a memory row could not be remapped",
    "retirement_pending": "pages wait for a reset to be retired",
    "lost": "the driver has lost it",
}
_FAULTS = frozenset({"ecc_uncorrected_volatile", "ecc_uncorrected_aggregate", *_FLAGS, "fault_xid"})


class DeviceHealth(Frozen):
    """What the driver says of one GPU. None: this GPU or driver does not say.

    `xids` are the driver's error codes since the previous look; `remapped_rows` counts correctable and uncorrectable
    ones, `slowdown_celsius` is where the hardware slows itself down, `throttling` are the reasons why the clock is
    below its maximum now.
    """

    uuid: str
    name: str = ""
    temperature_celsius: float | None = None
    slowdown_celsius: float | None = None
    throttling: tuple[str, ...] = ()
    ecc_uncorrected_volatile: int | None = None
    ecc_uncorrected_aggregate: int | None = None
    remapped_rows: int | None = None
    remapping_pending: bool | None = None
    remapping_failed: bool | None = None
    retired_pages: int | None = None
    retirement_pending: bool | None = None
    xids: tuple[int, ...] = ()
    lost: bool = False

    @property
    def too_hot(self) -> bool | None:
        """Whether the hardware slows itself down for its temperature."""
        if self.temperature_celsius is None or self.slowdown_celsius is None:
            return None
        return self.temperature_celsius >= self.slowdown_celsius


def worsened(before: DeviceHealth | None, now: DeviceHealth) -> Notice | None:
    """A notice of everything that is worse than `before`, None if nothing is.

    Without a `before` only what asks for a person counts: flags, heat, alarming throttling, XIDs. `values` holds the
    new value of each measure, `<measure>_before` the old one of a counter, `xid` the latest XID, and `fault_xid` the
    latest one that means the device.
    """
    values: dict[str, float] = {}
    sentences: list[str] = []
    for name, words in _COUNTERS.items():
        old, new = getattr(before, name, None), getattr(now, name)
        if old is not None and new is not None and new > old:
            values |= {name: float(new), f"{name}_before": float(old)}
            sentences.append(f"{new} {words} (before: {old})")
    for name, words in _FLAGS.items():
        if getattr(now, name) and not getattr(before, name, False):
            values[name] = 1.0
            sentences.append(words)
    if now.xids:
        values |= {"xid": float(now.xids[-1]), "xids": float(len(now.xids))}
        faults = [xid for xid in now.xids if xid not in HARMLESS_XIDS]
        values |= {"fault_xid": float(faults[-1])} if faults else {}
        sentences.append(f"XID {', '.join(map(str, now.xids))}")
    if now.too_hot and not (before and before.too_hot):
        values["temperature_celsius"] = now.temperature_celsius or 0.0
        sentences.append(f"{now.temperature_celsius:.0f} °C, and it slows down at {now.slowdown_celsius:.0f} °C")
    for reason in sorted(_alarming(now) - (_alarming(before) if before else frozenset())):
        values[f"throttling_{reason}"] = 1.0
        sentences.append(f"its clock is held down ({reason})")
    if not sentences:
        return None
    return Notice(kind="device_health", values=values, message=f"{now.name} {now.uuid}: {'; '.join(sentences)}")


def is_device_fault(notice: Notice) -> bool:
    """Whether the notice says that the device is broken: its memory, its link, or a reset that it needs.

    Heat and low clocks are no fault, rows and pages that were replaced are none, and an XID that a program caused.
    """
    return notice.kind == "device_health" and not _FAULTS.isdisjoint(notice.values)


def _alarming(health: DeviceHealth) -> frozenset[str]:
    return ALARMING_THROTTLING.intersection(health.throttling)
