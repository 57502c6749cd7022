"""Numbers as people read them."""

import pytest

from hpo_service.formatting.values import lowering


@pytest.mark.parametrize(
    ("difference", "words"),
    [(0.0, "less than 0.0001"), (1e-21, "less than 0.0001"), (0.0001, "0.0001"), (0.01234, "0.0123"), (1.5, "1.5")],
)
def test_an_expected_fall_has_no_digits_that_no_loss_is_shown_with(difference: float, words: str) -> None:
    assert lowering(difference) == words
