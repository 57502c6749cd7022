"""How values look in Optuna's tables. Pure, and equal to what Optuna's RDBStorage writes and reads."""

import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from optuna.distributions import BaseDistribution, json_to_distribution

from hpo_service.storage.optuna.tables import TrialIntermediateValueType, TrialValueType

T = TypeVar("T")

_INFINITIES = {math.inf: "INF_POS", -math.inf: "INF_NEG"}
_NUMBERS = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


def encode_value(value: float) -> tuple[float | None, TrialValueType]:
    """Columns `value`, `value_type` of an objective value."""
    kind = TrialValueType[_INFINITIES.get(value, "FINITE")]
    return (float(value) if kind is TrialValueType.FINITE else None), kind


def encode_intermediate(value: float) -> tuple[float | None, TrialIntermediateValueType]:
    """Columns `intermediate_value`, `intermediate_value_type`."""
    kind = TrialIntermediateValueType["NAN" if math.isnan(value) else _INFINITIES.get(value, "FINITE")]
    return (float(value) if kind is TrialIntermediateValueType.FINITE else None), kind


def decode_value(stored: float | str | None, kind: str) -> float:
    """The number behind both columns of an objective or an intermediate value; `kind` is the type's name."""
    return _NUMBERS[kind] if stored is None else float(stored)


def encode_time(local: datetime | None) -> datetime | None:
    """Naive UTC, as stored, from FrozenTrial's naive local time (or from an aware time)."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


def decode_time(stored: datetime | None) -> datetime | None:
    """FrozenTrial's naive local time from the stored naive UTC."""
    return None if stored is None else to_local(stored.replace(tzinfo=UTC))


def to_local(time: datetime) -> datetime:
    """The naive local time that FrozenTrial holds; `fold` tells the two passes of the hour before winter time apart."""
    local = time.astimezone()
    naive = local.replace(tzinfo=None)
    return naive if naive.astimezone(UTC) == local else naive.replace(fold=1)


def plain(value: T) -> T:
    """An attribute as it will be read back from JSON: tuples become lists, keys become strings."""
    as_read: T = json.loads(json.dumps(value))
    return as_read


@lru_cache(maxsize=4096)
def decode_distribution(text: str) -> BaseDistribution:
    """A distribution from `distribution_json`. Equal texts share one object, which nobody may change."""
    return json_to_distribution(text)
