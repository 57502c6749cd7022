"""What the service takes a device to cost."""

import logging
from pathlib import Path

import pytest

from hpo_service.core.errors import SetupError
from hpo_service.core.pricing import Prices, load_prices
from hpo_service.core.settings import Settings


def test_the_table_comes_before_the_flat_price(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "prices.csv").write_text("AcceleratorName,AcceleratorCount,Price\nL4,2,1.2\n")
    prices = load_prices(Settings(prices=tmp_path / "prices.csv", usd_per_gpu_hour=0.25))
    assert prices.usd_per_device_hour("NVIDIA L4") == pytest.approx(0.6)
    with caplog.at_level(logging.WARNING):
        assert [prices.usd_per_device_hour("NVIDIA A40") for _ in range(3)] == [0.25] * 3
    assert [record.getMessage().partition(";")[2] for record in caplog.records] == [
        " it counts 0.25 USD an hour (HPO_USD_PER_GPU_HOUR)"
    ]


def test_without_a_table_every_device_costs_the_same() -> None:
    assert load_prices(Settings(usd_per_gpu_hour=2.5)).usd_per_device_hour("NVIDIA L4") == 2.5
    assert Prices().usd_per_device_hour("NVIDIA L4") == 0.0


def test_a_table_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("prices:\n  - {AcceleratorName: L4, Price: 0}\n")
    with pytest.raises(SetupError, match=r"HPO_PRICES: .*prices.yaml line 2: Price 0: "):
        load_prices(Settings(prices=tmp_path / "prices.yaml"))


def test_the_table_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPO_PRICES", str(tmp_path / "prices.csv"))
    assert Settings().prices == tmp_path / "prices.csv"
