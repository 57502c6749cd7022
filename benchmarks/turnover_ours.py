"""Our side of the turnover benchmark: a real `hpo up` in a folder of its own, driven over HTTP."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from benchmarks.served import has_ended, served, wait_until
from benchmarks.turnover_work import EVAL_BATCH, MAX_LENGTH, SEED, Work
from hpo_service.storage.tables import Attempt, Event, Slice, Study, Worker

_STUDY_SECONDS = 3600.0
_SEARCHED = ("learning_rate", "lora_r", "lora_alpha", "warmup_ratio")


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What was measured. `seconds` run from the POST to the end of the study, `cold_seconds` from before `hpo up`.

    `parts` are the worker's own seconds by what they were spent on; `worker_seconds` are those from the start of the
    first slice to the end of the last one, by the database's clock.
    """

    seconds: float
    cold_seconds: float
    worker_seconds: float
    parts: dict[str, float]
    losses: tuple[float, ...]
    device: str
    load_average: float

    @property
    def overhead_share(self) -> float:
        """Share of the worker's time that is neither training nor evaluation."""
        return 1 - (self.parts["train"] + self.parts["evaluate"]) / self.worker_seconds


def run_ours(work: Work, folder: Path) -> Ours:
    """Start the service, run the study on its one worker, stop the service."""
    home = folder / f"home-{work.steps}"
    started_at = datetime.now(UTC)
    roots, log_path = (Path(work.model).parent, folder), folder / f"up-{work.steps}.log"
    with served(home, roots=roots, threads=work.threads, log_path=log_path) as (client, engine):
        posted_at = datetime.now(UTC)
        client.create_study(study_spec(work))
        wait_until(lambda: has_ended(client, "turnover"), _STUDY_SECONDS, "the study did not end")
        load_average = os.getloadavg()[0]
        with engine.connect() as connection:
            return _read(connection, started_at, posted_at, load_average)


def study_spec(work: Work) -> dict[str, Any]:
    """The configurations as enqueued points of a study without pruning."""
    first = work.configurations[0]
    constants = first.model_dump(exclude=set(_SEARCHED))
    space = {
        **{name: constants[name] for name in ("lora_dropout", "effective_batch")},
        "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
        "lora_r": {"choices": [8, 16, 32, 64]},
        "lora_alpha": {"choices": [16, 32, 64, 128]},
        "warmup_ratio": {"low": 0.03, "high": 0.15},
    }
    return {
        "metadata": {"name": "turnover"},
        "model": {"path": work.model},
        "data": {"train": work.train, "eval": work.eval, "max_length": MAX_LENGTH},
        "space": space,
        "training": {"seed": SEED, "micro_batch": first.effective_batch, "eval_batch": EVAL_BATCH},
        "search": {"strategy": "none", "evaluations": 2, "seed": SEED},
        "budget": {"max_trials": len(work.configurations)},
        "enqueue": [parameters.model_dump(include=set(_SEARCHED)) for parameters in work.configurations],
    }


def _read(connection: Connection, started_at: datetime, posted_at: datetime, load_average: float) -> Ours:
    names = ("load", "train", "evaluate", "snapshot")
    sums = [func.sum(getattr(Attempt, f"{name}_seconds")) for name in names]
    span = func.extract("epoch", func.max(Attempt.finished_at) - func.min(Attempt.started_at))
    *parts, worker_seconds, odd = connection.execute(
        select(*sums, span, func.count().filter(Attempt.outcome != "done")).join(Slice, Slice.id == Attempt.slice_id)
    ).one()
    if odd:
        raise RuntimeError(f"{odd} attempts did not end well; the measurement is void")
    finished_at = connection.execute(select(Study.finished_at)).scalar_one()
    assert finished_at is not None
    completed = select(Event.payload).where(Event.kind == "trial.completed").order_by(Event.trial_number)
    return Ours(
        seconds=(finished_at - posted_at).total_seconds(),
        cold_seconds=(finished_at - started_at).total_seconds(),
        worker_seconds=float(worker_seconds),
        parts={name: round(float(seconds), 3) for name, seconds in zip(names, parts, strict=True)},
        losses=tuple(float(payload["loss"]) for payload in connection.scalars(completed)),
        device=str(connection.scalar(select(Worker.device).order_by(Worker.id.desc()).limit(1))),
        load_average=load_average,
    )
