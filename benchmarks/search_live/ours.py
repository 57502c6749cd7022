"""Our default search: a study of strategy freeze_thaw on a real service with one worker."""

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select

from benchmarks.search_live.work import (
    EFFECTIVE_BATCH,
    EVAL_BATCH,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_DROPOUT,
    LORA_R,
    MAX_LENGTH,
    WARMUP_RATIO,
    LiveWork,
    Point,
    Side,
    first_at_most,
)
from benchmarks.served import has_ended, served, wait_until
from hpo_service.client.http import Client, study_path
from hpo_service.storage.tables import Attempt, Event, Slice

_NAME = "live"
_STUDY_SECONDS = 4 * 3600.0
#: most trials of ours stop early, so it needs room for more than the recipe
_TRIALS_PER_TRIAL = 8


@dataclass(frozen=True, kw_only=True)
class Until:
    """When to stop: at an evaluation as good as `loss`, or once both amounts are spent."""

    loss: float
    seconds: float
    examples: int


def run_ours(work: LiveWork, seed: int, folder: Path, until: Until) -> Side:
    """Search as long as it takes."""
    started = time.perf_counter()
    roots, log_path = (Path(work.model).parent, Path(work.train).parent), folder / f"up-{seed}.log"
    with served(folder / f"home-{seed}", roots=roots, threads=work.threads, log_path=log_path) as (client, engine):
        start_seconds, posted = time.perf_counter() - started, _now(engine)
        client.create_study(study_spec(work, seed))
        wait_until(lambda: _is_done(client, engine, posted, until), _STUDY_SECONDS, "the study did not end")
        seconds = (_now(engine) - posted).total_seconds()
        return _side(engine, posted, until, seconds=seconds, start_seconds=start_seconds)


def study_spec(work: LiveWork, seed: int) -> dict[str, Any]:
    """The recipe's space; everything else is the service's default."""
    low, high = LEARNING_RATE
    return {
        "metadata": {"name": _NAME},
        "model": {"path": work.model},
        "data": {"train": work.train, "eval": work.eval, "max_length": MAX_LENGTH},
        "space": {
            "learning_rate": {"low": low, "high": high, "log": True},
            "lora_r": {"choices": list(LORA_R)},
            "lora_alpha": {"choices": list(LORA_ALPHA)},
            "effective_batch": {"choices": list(EFFECTIVE_BATCH)},
            "warmup_ratio": {"low": WARMUP_RATIO[0], "high": WARMUP_RATIO[1]},
            "lora_dropout": LORA_DROPOUT,
        },
        "training": {"seed": seed, "micro_batch": max(EFFECTIVE_BATCH), "eval_batch": EVAL_BATCH},
        "search": {"strategy": "freeze_thaw", "seed": seed},
        "budget": {"max_trials": _TRIALS_PER_TRIAL * work.trials},
    }


def _is_done(client: Client, engine: Engine, posted: datetime, until: Until) -> bool:
    curve = _curve(engine, posted)
    spent = bool(curve) and curve[-1].seconds >= until.seconds and curve[-1].examples >= until.examples
    if spent or first_at_most(curve, until.loss) is not None:
        client.post(f"{study_path(_NAME)}:cancel")
        return True
    return has_ended(client, _NAME)


def _side(engine: Engine, posted: datetime, until: Until, *, seconds: float, start_seconds: float) -> Side:
    curve = _curve(engine, posted)
    last = first_at_most(curve, until.loss) or curve[-1]
    with engine.connect() as connection:
        began = connection.execute(select(func.count(Slice.trial_number.distinct()))).scalar_one()
        finals = connection.scalars(select(Event.payload).where(Event.kind == "trial.completed")).all()
    return Side(
        curve=tuple(curve),
        seconds=seconds,
        examples=last.examples,
        trials=began,
        complete=len(finals),
        best_loss=min((float(payload["loss"]) for payload in finals), default=None),
        start_seconds=start_seconds,
        load_average=os.getloadavg()[0],
    )


def _curve(engine: Engine, posted: datetime) -> list[Point]:
    """Every slice that ended well, by the database's clock; examples of lost attempts count as well."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(Attempt.finished_at, Attempt.examples, Attempt.outcome, Slice.trial_number, Slice.until_examples)
            .join(Slice, Slice.id == Attempt.slice_id)
            .where(Attempt.finished_at.is_not(None))
            .order_by(Attempt.finished_at)
        ).all()
        reported = connection.execute(
            select(Event.trial_number, Event.payload).where(Event.kind == "trial.reported")
        ).all()
    losses = {(number, payload["examples"]): float(payload["loss"]) for number, payload in reported}
    curve, examples = [], 0
    for finished_at, more, outcome, number, until in rows:
        assert finished_at is not None
        examples += more
        if outcome == "done":
            seconds = (finished_at - posted).total_seconds()
            curve.append(Point(seconds=seconds, examples=examples, loss=losses[number, until]))
    return curve


def _now(engine: Engine) -> datetime:
    with engine.connect() as connection:
        now: datetime = connection.execute(select(func.now())).scalar_one()
        return now
