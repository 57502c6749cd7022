"""The same as in `tests/integration/test_two_tenants.py`, at length and with other requests each time."""

from pathlib import Path

import pytest

from hpo_service.local.postgres import EmbeddedPostgres
from tests.tenants import shake


@pytest.mark.timeout(1800)
def test_random_requests_of_both_at_length(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    shake(postgres, tmp_path, examples=200, steps=50, derandomize=False)
