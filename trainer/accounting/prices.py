"""What a device costs an hour, from a table that the user keeps. No torch: trainer and service both read it.

The columns are named as in SkyPilot's catalogs: AcceleratorName, AcceleratorCount, Price, SpotPrice, Region.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from trainer.common.errors import UserError

#: Columns of SkyPilot's catalogs that say nothing of the price of an accelerator.
_PASSED_OVER = frozenset(
    {"InstanceType", "vCPUs", "MemoryGiB", "GpuInfo", "AvailabilityZone", "Generation", "SpotPriceUpdatedAt"}
)
#: What may follow a chip's name in the driver's without making it another chip: memory, socket, punctuation.
_HARMLESS = re.compile(r"\d+gb|hbm\w*|sxm|pcie|oam|gpu")
_VENDORS = frozenset({"nvidia", "amd", "intel", "tesla", "geforce", "instinct", "quadro"})
_FEWEST_LETTERS = 2


class PriceError(UserError):
    """A price table cannot be used; names the file and the line."""


def _no_blank(value: object) -> object:
    return None if value == "" else value


def _dollars(value: str) -> str:
    if value != "USD":
        raise ValueError(f"currency {value}: costs are kept in USD; convert the prices")
    return value


Blank = BeforeValidator(_no_blank)
Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PriceRow(BaseModel):
    """`AcceleratorCount` devices of one model cost `Price` USD an hour, `SpotPrice` where they may be taken away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    AcceleratorName: Annotated[str, Field(min_length=_FEWEST_LETTERS, max_length=128)]
    AcceleratorCount: Annotated[float, Field(gt=0, le=4096)] = 1
    Price: Annotated[Dollars | None, Blank] = None
    SpotPrice: Annotated[Dollars | None, Blank] = None
    Region: Annotated[str | None, Blank] = None
    currency: Annotated[str, AfterValidator(_dollars)] = "USD"
    effective_from: Annotated[date, Blank] = date.min
    source: Annotated[str | None, Blank] = None

    @model_validator(mode="after")
    def _has_a_price(self) -> "PriceRow":
        if self.Price is None and self.SpotPrice is None:
            raise ValueError("the row has neither Price nor SpotPrice")
        return self

    @property
    def usd_per_device_hour(self) -> float:
        """The price of one device; of spot capacity if the row has no other."""
        price = self.SpotPrice if self.Price is None else self.Price
        assert price is not None
        return price / self.AcceleratorCount


@dataclass(frozen=True)
class Quote:
    """The price of a device, or None and why."""

    usd_per_device_hour: float | None
    reason: str


@dataclass(frozen=True)
class PriceTable:
    """Prices with the dates from which they hold."""

    path: str
    rows: tuple[PriceRow, ...]

    def quote(self, device_name: str, at: datetime) -> Quote:
        """The newest price at `at` (an aware time) of what matches `device_name` best.

        A name matches if it is the driver's without vendor, memory size and socket, or with some of them: H100 and
        H100-80GB match `NVIDIA H100 80GB HBM3`, H100-NVL does not. Several prices (of regions) are no price.
        """
        wanted = _words(device_name)
        today = at.astimezone(UTC).date()
        matching = [row for row in self.rows if row.effective_from <= today and _fits(row.AcceleratorName, wanted)]
        if not matching:
            return Quote(None, f"{self.path} has no price for {device_name} on {today}")
        best = max(len(_words(row.AcceleratorName)) for row in matching)
        matching = [row for row in matching if len(_words(row.AcceleratorName)) == best]
        newest = max(row.effective_from for row in matching)
        matching = [row for row in matching if row.effective_from == newest]
        prices = sorted({row.usd_per_device_hour for row in matching})
        names = ", ".join(sorted({row.AcceleratorName for row in matching}))
        if len(prices) > 1:
            return Quote(
                None,
                f"{self.path} has {len(prices)} prices for {device_name} ({names}: {prices[0]:g} to {prices[-1]:g} USD "
                "an hour); keep the one that you pay",
            )
        return Quote(prices[0], f"{names} in {self.path}")

    def usd_per_device_hour(self, device_name: str, at: datetime) -> float | None:
        """The price of `quote`, None if there is no single one."""
        return self.quote(device_name, at).usd_per_device_hour


def read_prices(path: Path) -> PriceTable:
    """Read a table: `.csv` with a header line, else YAML with a list `prices`.

    In YAML `currency`, `effective_from` and `source` may be given once for all rows.

    Raises:
        PriceError: the file cannot be read, or a row is wrong; the message names its line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PriceError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    raw = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _yaml_rows(path, text)
    rows = tuple(_validated(path, line, values) for line, values in raw)
    if not rows:
        raise PriceError(f"{path} holds no prices")
    return PriceTable(str(path), rows)


def _validated(path: Path, line: int, values: dict[str, Any]) -> PriceRow:
    try:
        return PriceRow.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        column = ".".join(str(part) for part in problem["loc"])
        given = f" {problem['input']!r}" if column and problem["type"] != "missing" else ""
        message = problem["msg"].removeprefix("Value error, ")
        raise PriceError(f"{path} line {line}: {f'{column}{given}: ' if column else ''}{message}") from error


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        _check_columns(path, 1, reader.fieldnames or ())
        for row in reader:
            if None in row or None in row.values():
                raise PriceError(f"{path} line {reader.line_num}: the row does not have the header's columns")
            yield reader.line_num, {name: value for name, value in row.items() if name in PriceRow.model_fields}
    except csv.Error as error:
        raise PriceError(f"{path} line {reader.line_num}: {error}") from error


def _yaml_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        # The round-trip loader remembers lines; it builds plain values only.
        document = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PriceError(f"{path} line {line}: {error.problem}") from error
    except YAMLError as error:
        raise PriceError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, CommentedMap) or not isinstance(document.get("prices"), CommentedSeq):
        raise PriceError(f"{path} line 1: there is no list `prices`")
    shared = {name: value for name, value in document.items() if name != "prices"}
    for name in shared:
        if name not in ("currency", "effective_from", "source"):
            raise PriceError(f"{path} line {document.lc.key(name)[0] + 1}: {name} is not known here")
    for index, row in enumerate(document["prices"]):
        line = document["prices"].lc.item(index)[0] + 1
        if not isinstance(row, dict):
            raise PriceError(f"{path} line {line}: {row!r} is no row of columns")
        _check_columns(path, line, row)
        yield line, {**shared, **{name: value for name, value in row.items() if name in PriceRow.model_fields}}


def _check_columns(path: Path, line: int, names: Iterable[object]) -> None:
    known = PriceRow.model_fields.keys() | _PASSED_OVER
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        expected = ", ".join(PriceRow.model_fields)
        raise PriceError(f"{path} line {line}: column {unknown[0]!r} is not known; there are {expected}")


def _words(name: str) -> frozenset[str]:
    """The words of a device's name in small letters, without vendors; `RTX 4090` and `RTX4090` are the same."""
    # A CPU's name ends with its number of threads.
    plain = re.sub(r", \d+ threads$|( \d+-core)? processor\b|\((r|tm)\)|@.*", " ", name.lower())
    plain = re.sub(r"\b(rtx|gtx)[ -]?(?=\w?\d)", r"\1", plain)
    words = frozenset(re.findall(r"[a-z0-9.+]+", re.sub(r"\bsxm\d\b", "sxm", plain))) - _VENDORS
    # The driver does not name the socket of an H100, but only that one has this memory.
    return words | {"sxm"} if {"h100", "hbm3"} <= words else words


def _fits(accelerator_name: str, device: frozenset[str]) -> bool:
    named = _words(accelerator_name)
    return bool(named) and named <= device and all(_HARMLESS.fullmatch(word) for word in device - named)
