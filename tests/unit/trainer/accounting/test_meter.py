"""What a slice consumed, against counts that are made in other ways."""

import time
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.accounting.meter import DeviceUse, Meter, ModelShape
from trainer.accounting.nvml import Gpus
from trainer.accounting.peak_memory import HostPeak
from trainer.accounting.peaks import peak_flops_per_second
from trainer.spec import Dtype, TrialSpec
from trainer.training.engines.base import Step
from trainer.training.engines.resident import ResidentEngine

MakeSpec = Callable[..., TrialSpec]
MakeEngine = Callable[..., ResidentEngine]


class CountedGpus(Gpus):
    """An energy counter that the test turns, for one GPU."""

    def __init__(self, joules: float | None) -> None:
        super().__init__(())
        self.joules = joules

    def energy_joules(self) -> float | None:
        return self.joules

    def burn(self, joules: float) -> None:
        assert self.joules is not None
        self.joules += joules


def cpu_use(gpus: Gpus | None = None) -> DeviceUse:
    return DeviceUse(torch.device("cpu"), gpus or Gpus(()))


def step(*, data_seconds: float, recomputed_flops: float) -> Step:
    return Step(
        step=1,
        examples_seen=8,
        loss=1.0,
        gradient_norm=1.0,
        learning_rate=1e-3,
        examples=8,
        tokens=100,
        flops=1e6,
        recomputed_flops=recomputed_flops,
        data_seconds=data_seconds,
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_flops_of_a_step_are_those_that_torch_counts(
    make_engine: MakeEngine, make_spec: MakeSpec, checkpointing: bool
) -> None:
    """Eager attention and rows without padding: every matrix product is seen by torch's own counter."""
    engine = make_engine(attention="eager")
    spec = make_spec(attention="eager", micro_batch=1, lora_r=4, activation_checkpointing=checkpointing)
    trial = engine.admit(spec, None)
    with FlopCounterMode(display=False) as counted:
        taken = next(engine.advance(trial, 8))
    # The embeddings are frozen, so the first layer's q, k and v hand no gradient to their input.
    spared = 2 * (64 * 64 + 2 * 64 * 32 + 3 * 4 * 64) * taken.tokens
    if checkpointing:
        # Recomputing stops at the last tensor that is needed: each layer's last product is not made again.
        spared += 2 * 2 * 4 * 64 * taken.tokens
    assert counted.get_total_flops() == taken.flops + taken.recomputed_flops - spared
    assert (taken.recomputed_flops > 0) is checkpointing


def test_the_flops_of_an_evaluation_are_those_that_torch_counts(make_engine: MakeEngine, make_spec: MakeSpec) -> None:
    engine = make_engine(attention="eager")
    trial = engine.admit(make_spec(attention="eager", eval_batch=1), None)
    with FlopCounterMode(display=False) as counted:
        batch = next(engine.evaluate(trial))
    assert counted.get_total_flops() == engine.shape.forward_flops(
        trial.adapter_parameters,
        tokens=batch.tokens,
        learned_tokens=batch.response_tokens,
        squared_tokens=batch.squared_tokens,
    )


def test_flops_are_the_formula_where_every_token_is_learned() -> None:
    shape = ModelShape(matmul_parameters=1000, head_parameters=400, layers=3, attention_width=16)
    counts = {"tokens": 50, "learned_tokens": 50, "squared_tokens": 900}
    attention = 4 * 3 * 16 * 900
    assert shape.train_flops(20, **counts) == (4 * 1000 + 6 * 20) * 50 + 3 * attention
    assert shape.forward_flops(20, **counts) == (2 * 1000 + 2 * 20) * 50 + attention
    # With checkpointing 6N + 8n + 4A, but the head is not computed again.
    recomputed = shape.recomputed_flops(20, tokens=50, squared_tokens=900)
    assert shape.train_flops(20, **counts) + recomputed == ((6 * 1000 - 2 * 400 + 8 * 20) * 50 + 4 * attention)
    prompts = shape.train_flops(20, tokens=50, learned_tokens=10, squared_tokens=900)
    assert shape.train_flops(20, **counts) - prompts == 4 * 400 * 40


def test_tokens_leave_padding_out(make_engine: MakeEngine, make_spec: MakeSpec) -> None:
    engine = make_engine()
    trial = engine.admit(make_spec(micro_batch=8), None)
    wanted = trial.data.train.lengths[trial.order.indices(0, 8)]
    assert next(engine.advance(trial, 8)).tokens == int(wanted.sum()) < 8 * int(wanted.max())


def test_steps_add_up_and_waiting_for_data_is_not_training() -> None:
    meter = Meter(cpu_use(), devices=2, peak_flops_per_second=1e9)
    for data_seconds in (0.01, 0.02):
        with meter.timed("train"):
            time.sleep(0.05)
        meter.count_step(step(data_seconds=data_seconds, recomputed_flops=2e5))
    meter.evaluate_flops += 5e5
    with meter.timed("evaluate"):
        time.sleep(0.02)
    usage = meter.usage()
    assert (usage.steps, usage.examples, usage.tokens) == (2, 16, 200)
    assert (usage.flops, usage.train_flops, usage.train_hardware_flops) == (2.5e6, 2e6, 2.4e6)
    assert usage.data_seconds == pytest.approx(0.03)
    assert 0.07 <= usage.train_seconds < 0.07 + 1
    assert usage.evaluate_seconds >= 0.02
    assert meter.tokens_per_second() == pytest.approx(200 / (usage.train_seconds + usage.data_seconds))
    assert (usage.devices, usage.energy_joules) == (2, None)


def test_energy_goes_to_the_slice_that_has_the_device() -> None:
    gpus = CountedGpus(100.0)
    use = cpu_use(gpus)
    one, other = Meter(use), Meter(use)
    for meter, joules in ((one, 5.0), (other, 7.0), (one, 1.0), (one, 2.0), (other, 10.0)):
        with meter.timed("train"):
            gpus.burn(joules)
    assert [meter.usage().energy_joules for meter in (one, other)] == [8.0, 17.0]
    with one.timed("snapshot"):
        gpus.burn(3.0)
        assert one.usage().energy_joules == 11.0
        gpus.burn(4.0)
    assert one.usage().energy_joules == 15.0


def test_energy_is_unknown_once_the_counter_cannot_be_read() -> None:
    gpus = CountedGpus(100.0)
    use = cpu_use(gpus)
    one, other = Meter(use), Meter(use)
    with one.timed("train"):
        gpus.joules = None
    with other.timed("train"):
        gpus.joules = 200.0
    assert (one.usage().energy_joules, other.usage().energy_joules) == (None, None)


def test_peak_memory_is_the_slices_own() -> None:
    """Each gets the most that was in use in its own turns, and a big one leaves no trace in a later small one."""
    if not _can_reset_the_peak():
        pytest.skip("this system does not let a process lower the high-water mark of its memory")
    use = cpu_use()
    small, big, late = Meter(use), Meter(use), Meter(use)
    with small.timed("train"):
        pass
    with big.timed("train"):
        _touch(300)
    with late.timed("train"):
        _touch(50)
    mib = 2**20
    peaks = {name: meter.usage().peak_memory_bytes / mib for name, meter in (("s", small), ("b", big), ("l", late))}
    assert 290 < peaks["b"] - peaks["s"] < 330
    assert 40 < peaks["l"] - peaks["s"] < 80


def _touch(mib: int) -> None:
    torch.ones(mib * 2**20, dtype=torch.uint8)


def _can_reset_the_peak() -> bool:
    peak = HostPeak()
    _touch(64)
    peak.reset()
    before = peak.read_bytes()
    _touch(64)
    return peak.read_bytes() - before > 32 * 2**20


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H100 NVL", "bfloat16", 835e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 19.5e12),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312e12),
        ("NVIDIA B200", "bfloat16", 2.25e15),
        ("NVIDIA B200", "float32", None),
        ("NVIDIA GB200", "bfloat16", 2.5e15),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA A40", "bfloat16", 149.7e12),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", None),
        ("AMD Instinct MI300X", "bfloat16", 1307e12),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bfloat16", None),
        ("NVIDIA A100-SXM-64GB", "bfloat16", None),
        ("NVIDIA H800", "bfloat16", None),
        ("AMD EPYC 7B13, 2 threads", "float32", None),
    ],
)
def test_peaks_of_known_devices_only(name: str, dtype: Dtype, peak: float | None) -> None:
    assert peak_flops_per_second(name, dtype) == (None if peak is None else pytest.approx(peak))
