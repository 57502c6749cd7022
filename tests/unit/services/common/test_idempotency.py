"""Idempotency keys."""

import pytest

from hpo_service.core.errors import InvalidRequest
from hpo_service.services.common.idempotency import Repetition


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256, "a\n"])
def test_idempotency_keys_are_plain(key: str) -> None:
    with pytest.raises(InvalidRequest):
        Repetition(1, key, "create", {})
