"""A whole service under faults, for a minute: seeds whose schedules stop, kill and cut every part."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_no_invariant_breaks_under_chaos() -> None:
    """On failure the output names the seed and the folder in which everything is kept."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seeds", "26-27", "--seconds", "10"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 of 2 seeds held" in ran.stdout
