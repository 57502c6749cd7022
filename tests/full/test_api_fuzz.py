"""Hundreds of requests of every operation, and sequences of them."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests import serving
from tests.fuzzing import fuzz, served

_EXAMPLES = "200"
_HOURS_SECONDS = 3 * 3600


@pytest.mark.timeout(_HOURS_SECONDS)
def test_schemathesis_finds_nothing(engine: Engine, tmp_path: Path) -> None:
    root = tmp_path / "files"
    serving.make_inputs(root)
    with served(engine, root) as api:
        report = fuzz(api, tmp_path, "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", _EXAMPLES)
    print(f"{report.operations} operations, {report.cases} cases")
    assert report.failures == ()
