"""Where deploy/ is, and the tools that check it: they come as wheels and need neither Docker nor a cluster."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"


class Tools:
    """Programs of this Python's environment."""

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """What it said, whatever it found."""
        path = Path(sysconfig.get_path("scripts")) / program
        return subprocess.run([path, *arguments], capture_output=True, text=True, check=False, cwd=DEPLOY, timeout=60)


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder."""
    return DEPLOY


@pytest.fixture(scope="session")
def tools() -> Tools:
    """What runs the tools."""
    return Tools()
