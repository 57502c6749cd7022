"""Slices on the real small model and real data, and waiting for what an executor says of them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpo_service.executors.base import Executor, ExecutorEvent, JobEnded, SliceEnded, Work, WorkerReady
from trainer.spec import (
    CheckData,
    DataSpec,
    Job,
    JobResult,
    ModelSpec,
    Parameters,
    Slice,
    SliceResult,
    TrainingSettings,
    TrialSpec,
)

EXAMPLES = Path(__file__).parents[1] / "examples"
TIMEOUT_SECONDS = 90.0

_ids = iter(range(1, 10_000))


def a_slice(*, trial: int = 1, until: int = 16, epochs: float = 1.0, ranks: int = 1) -> Slice:
    """A slice of a trial of 64 examples an epoch, with a token of its own."""
    slice_id = next(_ids)
    return Slice(
        slice_id=slice_id,
        attempt=1,
        trial=TrialSpec(
            model=ModelSpec(path=str(EXAMPLES / "tiny-llama"), dtype="float32"),
            data=DataSpec(
                train=str(EXAMPLES / "wordnet-instruct" / "train.jsonl"),
                eval=str(EXAMPLES / "wordnet-instruct" / "eval.jsonl"),
                max_length=96,
                max_train_examples=64,
                max_eval_examples=16,
            ),
            parameters=Parameters(learning_rate=1e-3, lora_r=4, effective_batch=8, epochs=epochs),
            training=TrainingSettings(seed=1, ranks=ranks),
        ),
        until_examples=until,
        snapshot_dir=f"1/{trial}/{until}/{slice_id}",
    )


def a_job(**data: object) -> Job:
    """A check of the example data, with a token of its own; `data` changes what is checked."""
    rows = {"train": str(EXAMPLES / "wordnet-instruct" / "eval.jsonl"), "max_length": 96, **data}
    task = CheckData(model=str(EXAMPLES / "tiny-llama"), data=DataSpec.model_validate(rows))
    return Job(job_id=next(_ids), attempt=1, task=task)


def long_slice(trial: int = 9) -> Slice:
    """A slice that runs until it is stopped."""
    return a_slice(trial=trial, until=64 * 500, epochs=500)


def wait_for(executor: Executor, enough: Callable[[Sequence[ExecutorEvent]], bool]) -> list[ExecutorEvent]:
    """Poll until what was seen is enough."""
    seen: list[ExecutorEvent] = []
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not enough(seen):
        assert time.monotonic() < deadline, f"only {seen}"
        seen.extend(executor.poll(0.05))
    return seen


def wait_ready(executor: Executor, count: int) -> list[ExecutorEvent]:
    """Wait until so many workers are warm."""
    return wait_for(executor, lambda seen: sum(isinstance(event, WorkerReady) for event in seen) == count)


def ended(seen: Sequence[ExecutorEvent]) -> list[SliceResult]:
    """Results among the events."""
    return [event.result for event in seen if isinstance(event, SliceEnded)]


def ended_jobs(seen: Sequence[ExecutorEvent]) -> list[JobResult]:
    """Results of jobs among the events."""
    return [event.result for event in seen if isinstance(event, JobEnded)]


def submit(executor: Executor, work: Work) -> str:
    """Hand the work to whoever is free; the worker's name."""
    worker = executor.choose(work, prefetch=False)
    assert worker is not None
    executor.submit(work, worker)
    return worker
