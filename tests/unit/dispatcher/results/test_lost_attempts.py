"""Who is to blame for a worker that ended."""

from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.results.lost_attempts import losses
from hpo_service.dispatcher.results.poison_slices import is_poison, kills
from hpo_service.dispatcher.workers.progress_timeouts import Liveness
from hpo_service.executors.base import SliceProgress, WorkerGone
from trainer.spec import Progress

A, B, JOB = (1, 1), (2, 1), (3, 1)
DIED = WorkerGone(worker="w", reason="w ended with signal SIGSEGV")


def begun(*tokens: tuple[int, int]) -> Liveness:
    liveness = Liveness()
    for slice_id, attempt in tokens:
        progress = Progress(
            slice_id=slice_id,
            attempt=attempt,
            phase="starting",
            examples_seen=8,
            step=1,
            train_loss=None,
            tokens_per_second=0.0,
            memory_bytes=1,
        )
        liveness.hear([SliceProgress(worker="w", progress=progress)])
    return liveness


def test_a_slice_alone_is_to_blame_and_what_is_queued_is_not() -> None:
    first, second, job = sorted(losses(DIED, [A, B], [JOB], begun(A)), key=lambda loss: loss.token)
    assert (first.cause, first.alone) == (Cause.WORKER_DIED, True)
    assert first.reason == "w ended with signal SIGSEGV; last heard of starting at 8 examples (step 1)"
    assert (second.cause, second.alone) == (Cause.NEVER_SENT, False)
    assert (job.token, job.cause, job.alone) == (JOB, Cause.WORKER_DIED, False)


def test_neighbours_are_all_suspects() -> None:
    for liveness in (begun(A, B), begun()):
        found = losses(DIED, [A, B], [], liveness)
        assert [(loss.cause, loss.alone) for loss in found] == [(Cause.WORKER_DIED, False)] * 2


def test_nobody_is_to_blame_for_a_node_that_was_lost() -> None:
    lost = WorkerGone(worker="w", reason="the node went away", cause=Cause.NODE_LOST)
    assert {loss.cause for loss in losses(lost, [A, B], [], begun(A))} == {Cause.NODE_LOST}


def test_the_second_worker_that_a_slice_ends_alone_proves_it() -> None:
    assert kills({"worker_died": 1, "no_progress": 1, "infra_error": 5}) == 2
    assert is_poison(1, Cause.NO_PROGRESS, alone=True)
    assert not is_poison(0, Cause.WORKER_DIED, alone=True)
    assert not is_poison(2, Cause.WORKER_DIED, alone=False)
    assert not is_poison(1, Cause.INFRA_ERROR, alone=True)
    assert not is_poison(1, None, alone=True)
