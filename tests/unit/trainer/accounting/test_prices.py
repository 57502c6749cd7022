"""The user's price table."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainer.accounting.prices import PriceError, PriceTable, read_prices

NOVEMBER = datetime(2026, 11, 24, tzinfo=UTC)
CATALOG = """InstanceType,AcceleratorName,AcceleratorCount,vCPUs,Price,SpotPrice,Region
p5,H100,8,192,24.0,8.0,r1
p4d,A100,8,96,12.0,,r1
p4de,A100-80GB,8,96,20.0,,r1
nvl,H100-NVL,1,24,2.5,,r1
g6,L4,1,8,,0.3,r1
w,RTX4090,4,8,1.6,,r1
w,RTX6000-Ada,1,8,0.9,,r1
c,EPYC 7B13,1,8,0.05,,r1
"""


@pytest.fixture
def catalog(tmp_path: Path) -> PriceTable:
    (tmp_path / "catalog.csv").write_text(CATALOG)
    return read_prices(tmp_path / "catalog.csv")


@pytest.mark.parametrize(
    ("device", "price"),
    [
        ("NVIDIA H100 80GB HBM3", 3.0),
        ("NVIDIA H100 PCIe", 3.0),
        ("NVIDIA H100 NVL", 2.5),
        ("NVIDIA A100-SXM4-40GB", 1.5),
        ("NVIDIA A100-SXM4-80GB", 2.5),
        ("NVIDIA A100 80GB PCIe", 2.5),
        ("NVIDIA L4", 0.3),
        ("NVIDIA GeForce RTX 4090", 0.4),
        ("NVIDIA RTX 6000 Ada Generation", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA L40S", None),
        ("NVIDIA H200", None),
        ("AMD EPYC 7B13 64-Core Processor, 2 threads", 0.05),
        ("AMD EPYC 9R14 96-Core Processor, 2 threads", None),
        ("", None),
    ],
)
def test_devices_find_their_price_and_no_other(catalog: PriceTable, device: str, price: float | None) -> None:
    assert catalog.usd_per_device_hour(device, NOVEMBER) == (None if price is None else pytest.approx(price))


def test_the_newest_price_that_holds_already_counts(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "effective_from: 2026-01-01\nsource: contract 12\nprices:\n"
        "  - {AcceleratorName: L4, Price: 0.8}\n"
        "  - {AcceleratorName: L4, Price: 0.6, effective_from: 2026-11-24}\n"
    )
    table = read_prices(file)
    assert [
        table.usd_per_device_hour("NVIDIA L4", datetime(*day, tzinfo=UTC))
        for day in ((2025, 12, 31), (2026, 1, 1), (2026, 11, 23), (2026, 11, 24))
    ] == [None, 0.8, 0.8, 0.6]
    assert table.rows[0].source == "contract 12"


def test_two_prices_are_none_and_said(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("AcceleratorName,Price,Region\nL4,0.8,here\nL4,0.7,there\nT4,0.3,here\nT4,0.3,there\n")
    quote = read_prices(file).quote("NVIDIA L4", NOVEMBER)
    assert quote.usd_per_device_hour is None
    assert "2 prices for NVIDIA L4 (L4: 0.7 to 0.8 USD an hour)" in quote.reason
    assert read_prices(file).quote("Tesla T4", NOVEMBER).usd_per_device_hour == 0.3
    assert "no price for NVIDIA A40" in read_prices(file).quote("NVIDIA A40", NOVEMBER).reason


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.csv", "AcceleratorName,Price\nL4,0.5\nT4,-3\n", r"p.csv line 3: Price '-3': Input should be greater than"),
        ("p.csv", "AcceleratorName,Price\nL4\n", "line 2: the row does not have the header's columns"),
        ("p.csv", "AcceleratorName,Prize\nL4,1\n", "line 1: column 'Prize' is not known; there are AcceleratorName"),
        ("p.csv", "AcceleratorName,Price,SpotPrice\nL4,,\n", "line 2: the row has neither Price nor SpotPrice"),
        ("p.csv", "AcceleratorName,Price\n", "holds no prices"),
        ("p.yaml", "prices:\n  - {AcceleratorName: L4, Price: 1}\n  - {AcceleratorName: L4, Price: much}\n", "line 3"),
        ("p.yaml", "prices:\n  - {AcceleratorName: L4, Price: 1}\n  - {Price: 1}\n", "line 3: AcceleratorName: Field"),
        ("p.yaml", "currency: EUR\nprices:\n  - {AcceleratorName: L4, Price: 1}\n", "currency EUR: .* convert"),
        ("p.yaml", "curency: USD\nprices: []\n", "line 1: curency is not known here"),
        ("p.yaml", "prices:\n  - L4\n", "line 2: 'L4' is no row"),
        ("p.yaml", "prices: [\n", "line 2"),
        ("p.yaml", "- 3\n", "there is no list `prices`"),
        ("p.yaml", "prices:\n  - !!python/object/apply:os.system [ls]\n", "line 2"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PriceError, match=problem) as caught:
        read_prices(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PriceError, match="No such file"):
        read_prices(tmp_path / "none.csv")


def test_the_example_is_a_table() -> None:
    table = read_prices(Path(__file__).parents[4] / "deploy/prices.example.yaml")
    assert table.usd_per_device_hour("NVIDIA H100 80GB HBM3", datetime(2026, 11, 25, tzinfo=UTC)) == 3.0
    assert {row.source for row in table.rows} == {"placeholder"}
