"""What `hpo up` does where a part that no study needs cannot run."""

import os
import time
from pathlib import Path

import pytest

from hpo_service.core import child_process
from hpo_service.core.child_process import Child
from hpo_service.core.settings import Settings
from hpo_service.local.supervisor import Supervisor


def test_an_outbox_that_keeps_dying_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "MAX_QUICK_DEATHS", 1)
    said = list[str]()
    supervisor = Supervisor(Settings(home=tmp_path), said.append)
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    outbox = Child("outbox", ["sh", "-c", "echo canary; exit 3"], os.environ, tmp_path / "outbox.log", descriptor)
    supervisor._optional["outbox"] = outbox
    outbox.start()
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        supervisor.check()
        time.sleep(0.02)
    supervisor.check()
    os.close(descriptor)
    (sentence,) = said
    assert "exit status 3" in sentence
    assert "canary" in sentence
    assert "Studies go on" in sentence
