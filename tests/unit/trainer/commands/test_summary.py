"""What `python -m trainer run` says in the end."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainer.accounting.prices import read_prices
from trainer.commands.summary import summarize
from trainer.spec import Notice, Outcome, SliceResult, SnapshotRef, Usage

NOVEMBER = datetime(2026, 11, 24, tzinfo=UTC)


def done(usage: Usage, device: str) -> SliceResult:
    return SliceResult(
        slice_id=1,
        attempt=1,
        outcome=Outcome.DONE,
        examples_seen=64,
        eval_loss=0.0,
        eval_tokens=5,
        snapshot=SnapshotRef(path="s/1", digest="0" * 64, examples_seen=64),
        usage=usage,
        device=device,
        notices=(Notice(kind="device_health", message="GPU-1: XID 79"),),
    )


def test_on_a_known_device_everything_is_told(tmp_path: Path) -> None:
    usage = Usage(
        steps=8,
        tokens=36_000,
        train_flops=1.8e15,
        train_hardware_flops=2.7e15,
        load_seconds=1.0,
        data_seconds=2.0,
        train_seconds=16.0,
        evaluate_seconds=10.0,
        snapshot_seconds=7.0,
        energy_joules=7200.04,
        devices=2,
        peak_flops_per_second=1e14,
    )
    (tmp_path / "prices.csv").write_text("AcceleratorName,AcceleratorCount,Price\nA100,8,16\n")
    prices = read_prices(tmp_path / "prices.csv")
    summary, said = summarize(done(usage, "NVIDIA A100-SXM4-40GB"), prices, NOVEMBER)
    assert summary["tokens_per_second"] == 2000.0
    assert summary["mfu"] == pytest.approx(1.8e15 / (18 * 2 * 1e14))
    assert summary["hfu"] == pytest.approx(2.7e15 / (18 * 2 * 1e14))
    assert summary["energy_joules"] == 7200.0
    assert summary["cost_usd"] == pytest.approx(2.0 * 2 * 36 / 3600)
    assert summary["phase_seconds"] == {"load": 1, "data": 2, "train": 16, "evaluate": 10, "snapshot": 7}
    assert said == ("GPU-1: XID 79",)
    other, said = summarize(done(usage, "NVIDIA A40"), prices, NOVEMBER)
    assert other["cost_usd"] is None
    assert "no price for NVIDIA A40" in said[1]


def test_what_is_not_known_is_null() -> None:
    summary, _ = summarize(done(Usage(steps=1, tokens=10, train_seconds=1.0), "a CPU, 2 threads"), None, NOVEMBER)
    assert [summary[key] for key in ("mfu", "hfu", "energy_joules", "cost_usd")] == [None] * 4
