"""`hpo demo` as a newcomer sees it without a terminal."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.e2e.service import ROOT


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(mkdtemp(prefix="hpo-demo-"))
    folder.chmod(0o755)
    yield folder / "home"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(900)
def test_the_demo_finds_something_better_and_ends(home: Path) -> None:
    command = [sys.executable, "-m", "hpo_service.cli", "demo", "--home", str(home)]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"DEMO_EXIT": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout + ran.stderr
    gain = re.search(r"gain:\s+([\d.]+)% better than the baseline", said)
    assert gain, said
    assert float(gain.group(1)) > 10
    assert (home / "best.yaml").exists()
