"""Who gets the devices of a machine."""

import pytest

from hpo_service.executors.layout import group_sizes


@pytest.mark.parametrize(
    ("wanted", "devices", "expected"),
    [
        ([], 3, [1, 1, 1]),
        ([1, 1], 2, [1, 1]),
        ([2], 4, [2, 2]),
        ([2], 3, [2]),
        ([2, 1], 4, [2, 1, 1]),
        ([1, 2], 4, [1, 2, 1]),
        ([4, 2, 1], 4, [4]),
        ([2, 4], 4, [2, 2]),
        ([8, 1], 2, [1, 1]),
        ([8], 2, [1, 1]),
    ],
)
def test_every_size_that_fits_gets_a_group_before_the_first_gets_more(
    wanted: list[int], devices: int, expected: list[int]
) -> None:
    assert group_sizes(wanted, devices) == expected
    assert sum(expected) <= devices
