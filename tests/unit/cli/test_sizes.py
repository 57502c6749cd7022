"""Limits as people write them."""

import pytest

from hpo_service.cli.sizes import limit_of
from hpo_service.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("8", "parallel_gpus", 8),
        ("0", "studies", 0),
        ("12.5", "gpu_hours_month", 12.5),
        ("500GB", "stored_bytes", 500 * 10**9),
        ("1.5TiB", "stored_bytes", 3 * 2**39),
        ("none", "stored_bytes", None),
    ],
)
def test_what_is_read(text: str, limit: str, expected: float | None) -> None:
    assert limit_of(text, limit) == expected


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("-1", "studies"),
        ("1.5", "studies"),
        ("many", "studies"),
        ("8GB", "parallel_gpus"),
        ("1h", "gpu_hours_month"),
        ("nan", "gpu_hours_month"),
        ("1e9", "stored_bytes"),
        ("9999TB", "stored_bytes"),
        ("", "stored_bytes"),
    ],
)
def test_what_is_refused_with_an_example(text: str, limit: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is no limit; write a number such as .*, or none\."):
        limit_of(text, limit)
