"""What a worker said stays as long as it may be needed."""

import threading
import time

from hpo_service.core.study_rules import Cause
from hpo_service.executors.ray.message_log import MessageLog
from hpo_service.executors.ray.protocol import Ended
from trainer.spec import Outcome, Progress, Ready, SliceResult, SnapshotRef, worker_message


def progress(examples: int, slice_id: int = 1, *, checkpoint: bool = False) -> Progress:
    ref = SnapshotRef(path=f"1/{examples}", digest="0" * 64, examples_seen=examples) if checkpoint else None
    return Progress(
        slice_id=slice_id,
        attempt=1,
        examples_seen=examples,
        step=examples,
        train_loss=None,
        tokens_per_second=0.0,
        memory_bytes=0,
        checkpoint=ref,
    )


def result(slice_id: int = 1) -> SliceResult:
    return SliceResult(slice_id=slice_id, attempt=1, outcome=Outcome.OOM, examples_seen=0)


def seen(log: MessageLog, after: int = 0) -> list[object]:
    return [worker_message.validate_json(said.body) for said in log.after(after, 0)]


READY = Ready(pid=1, device="cpu", software={})


def test_all_that_still_matters_is_told_again_in_order() -> None:
    log = MessageLog()
    for message in (READY, progress(1), progress(2, checkpoint=True), progress(3), progress(1, slice_id=2)):
        log.add(message)
    assert seen(log) == [READY, progress(2, checkpoint=True), progress(3), progress(1, slice_id=2)]
    for examples in (4, 5):
        log.add(progress(examples, checkpoint=True))
    log.add(result())
    assert seen(log) == [
        READY, progress(1, slice_id=2), progress(4, checkpoint=True), progress(5, checkpoint=True), result()
    ]  # fmt: skip
    assert log.results() == {(1, 1)}


def test_what_was_taken_is_forgotten() -> None:
    log = MessageLog()
    for message in (READY, result(1), result(2), progress(1, slice_id=3)):
        log.add(message)
    log.take((1, 1))
    assert seen(log) == [READY, result(2), progress(1, slice_id=3)]
    assert log.results() == {(2, 1)}


def test_numbers_go_on_and_nothing_is_told_twice() -> None:
    log = MessageLog()
    log.add(READY)
    (first,) = log.after(0, 0)
    assert log.after(first.sequence, 0) == []
    log.add(result())
    log.take((1, 1))
    log.add(Ended(reason="over", replaced=False, cause=Cause.WORKER_DIED))
    (last,) = log.after(first.sequence, 0)
    assert (last.kind, last.sequence) == ("ended", first.sequence + 2)


def test_who_listens_hears_at_once() -> None:
    log = MessageLog()
    threading.Timer(0.1, log.add, [READY]).start()
    began = time.monotonic()
    assert len(log.after(0, 20)) == 1
    threading.Timer(0.1, log.wake).start()
    assert log.after(1, 20) == []
    assert time.monotonic() - began < 10
