"""A probe sees that the dispatcher's loop turns, whatever the database does."""

import threading
import time
from pathlib import Path

from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.database import make_engine, session_factory
from tests.dispatching import loss_of


def test_it_is_touched_while_the_database_is_away(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", application_name="test")
    dispatcher = Dispatcher(session_factory(engine), FakeExecutor(loss_of), snapshots="/nonexistent", alive_file=alive)
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    touched: set[int] = set()
    deadline = time.monotonic() + 30
    while len(touched) < 2 and time.monotonic() < deadline:
        if alive.exists():
            touched.add(alive.stat().st_mtime_ns)
        time.sleep(0.05)
    stop.set()
    thread.join()
    engine.dispose()
    assert len(touched) == 2
