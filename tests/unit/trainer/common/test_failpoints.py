"""Failpoints: off unless named, at the time that was named, and only known ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.common import failpoints
from trainer.common.failpoints import FAILPOINTS, VARIABLE, Commit, Failpoint, RayFailpoint, arm

ROOT = Path(__file__).parents[4]
PASS_THREE_TIMES = """
from trainer.common.failpoints import Failpoint, reach
for time in range(3):
    reach(Failpoint.SUBMIT_AFTER)
    print(time, flush=True)
"""


def run(failpoints: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-c", PASS_THREE_TIMES],
        env={**os.environ, VARIABLE: failpoints},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_off_unless_named() -> None:
    assert run("") == (0, "0\n1\n2\n", "")
    assert run("result.before_send") == (0, "0\n1\n2\n", "")


def test_kills_at_the_time_that_was_named_and_says_so() -> None:
    assert run("submit.after") == (-9, "", "failpoint submit.after: kill\n")
    assert run("submit.after:3")[:2] == (-9, "0\n1\n")


def test_meets_an_error_once() -> None:
    arm("accept.before_commit:2=error")
    try:
        failpoints.before_commit(Commit.ACCEPT)
        failpoints.after_commit(Commit.ACCEPT)
        with pytest.raises(OSError, match=r"accept\.before_commit"):
            failpoints.before_commit(Commit.ACCEPT)
        failpoints.before_commit(Commit.ACCEPT)
    finally:
        arm("")


@pytest.mark.parametrize("text", ["nowhere", "submit.after=explode", "submit.after:0", "submit.after:x"])
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        arm(text)
    assert not failpoints._armed


def test_every_place_is_listed_once() -> None:
    assert len(FAILPOINTS) == len(set(FAILPOINTS)) == 2 * len(Commit) + len(Failpoint) + len(RayFailpoint)


def test_every_place_is_come_by() -> None:
    code = "".join(
        path.read_text() for package in ("hpo_service", "trainer") for path in (ROOT / package).rglob("*.py")
    )
    places = [f"{type(place).__name__}.{place.name}" for kind in (Commit, Failpoint, RayFailpoint) for place in kind]
    assert [place for place in places if not re.search(rf"\b{place}\b", code)] == []
