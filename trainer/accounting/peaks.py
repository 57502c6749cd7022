"""Dense peak FLOPs of known devices, for MFU and HFU. An unknown device has no peak: nothing is guessed."""

import re
from typing import Final

from trainer.spec import Dtype

#: Name as the driver tells it (the whole of it) and teraFLOPs per second: bfloat16 on tensor cores without sparsity,
#: float32 on the ordinary cores, for we never let TF32 stand in. The vendors' data sheets; bfloat16 as in torchtitan.
_TERAFLOPS: Final[tuple[tuple[str, dict[Dtype, float]], ...]] = (
    (r"NVIDIA H100 80GB HBM3|NVIDIA H200", {"bfloat16": 989.0, "float32": 67.0}),
    (r"NVIDIA H100 PCIe", {"bfloat16": 756.0, "float32": 51.0}),
    (r"NVIDIA H100 NVL", {"bfloat16": 835.0, "float32": 60.0}),
    (
        r"(NVIDIA )?A100-(SXM4-40GB|SXM4-80GB|SXM-80GB|PCIE-40GB)|NVIDIA A100 80GB PCIe",
        {"bfloat16": 312.0, "float32": 19.5},
    ),
    (r"NVIDIA B200", {"bfloat16": 2250.0}),
    (r"NVIDIA GB200", {"bfloat16": 2500.0}),
    (r"NVIDIA L40S", {"bfloat16": 362.0, "float32": 91.6}),
    (r"NVIDIA L4", {"bfloat16": 121.0, "float32": 30.3}),
    (r"NVIDIA A40", {"bfloat16": 149.7, "float32": 37.4}),
    (r"NVIDIA GeForce RTX 4090", {"bfloat16": 165.0, "float32": 82.6}),
    (r"AMD Instinct MI300X( OAM)?", {"bfloat16": 1307.0, "float32": 163.4}),
)


def peak_flops_per_second(device_name: str, dtype: Dtype) -> float | None:
    """One device's dense peak at `dtype`; None for a CPU, a part of a GPU (MIG) and every name not in our table."""
    for pattern, teraflops in _TERAFLOPS:
        if re.fullmatch(pattern, device_name):
            peak = teraflops.get(dtype)
            return None if peak is None else peak * 1e12
    return None
