"""How long freeze-thaw search takes for a decision, at 300 and at 3,000 trials.

Views are made up: configurations of the preset `standard`, curves that fall with the examples, fewer and fewer trials
at later rungs, four slices running, some failures. Each decision number draws anew what the strategy decides by.
Fitting the hyperparameters anew, which happens when the trials grew by the factor of the settings, is timed apart.

Run `OMP_NUM_THREADS=1 python -m benchmarks.decisions`; the last line is one JSON object. Targets: p95 of at most 100 ms
at 300 trials and 500 ms at 3,000.
"""

import argparse
import json
from dataclasses import replace
from time import perf_counter, process_time
from typing import Any

import numpy as np

from hpo_service.search.strategies import build
from hpo_service.search.strategies.base import (
    Advance,
    Roster,
    Start,
    Step,
    Strategy,
    StudyView,
    TrialStanding,
    TrialView,
)
from hpo_service.spec import ResolvedStudy, parse_spec, resolve
from hpo_service.spec.space import Assignment
from trainer.spec import Outcome

TRIALS = (300, 3000)
DECISIONS = 100
FITS = 5
RUNNING = 4
FOLDS = 8
FAILED_SHARE = 0.03
SURVIVORS = 0.6


def study() -> ResolvedStudy:
    """A study whose space has continuous, integer, categorical and conditional parameters."""
    spec = parse_spec(
        {
            "metadata": {"name": "decisions"},
            "preset": "standard",
            "model": {"path": "model"},
            "data": {"train": "train.jsonl"},
            "search": {"strategy": "freeze_thaw"},
            "budget": {"max_trials": 100_000},
        }
    )
    return resolve(spec, model_path="/m", train="/t", eval=None, train_rows=10_000, eval_rows=500)


def made_up(resolved: ResolvedStudy, count: int) -> StudyView:
    """A view of so many trials, as in the middle of a study."""
    random, space = np.random.default_rng(0), resolved.search_space()
    trials: list[TrialView] = []
    while len(trials) < count:
        found = space.sample(lambda name: space.spread(name, random.random()))
        if space.feasible(found) is None:
            trials.append(_trial(resolved, len(trials), found, running=count - len(trials) <= RUNNING, random=random))
    return StudyView(
        seed=0,
        decision_number=2 * count,
        max_trials=resolved.budget.max_trials,
        trials=Roster.of(trials),
        ladder=resolved.ladder,
        slots=RUNNING,
    )


def _trial(
    resolved: ResolvedStudy, number: int, found: Assignment, *, running: bool, random: np.random.Generator
) -> TrialView:
    ladder = resolved.trial_rungs(found.parameters)
    reached = ladder[: 0 if running else min(len(ladder), int(random.geometric(1 - SURVIVORS)))]
    distance = np.log10(found.parameters.learning_rate / 3e-4)
    level = 1 + 0.3 * distance**2 + 0.1 * random.normal()
    losses = {rung: float(level + (2 + distance**2) * rung**-0.3 + 0.01 * random.normal()) for rung in reached}
    standing: TrialStanding = "running" if running else "complete" if reached == ladder else "paused"
    failed = standing == "paused" and random.random() < FAILED_SHARE
    return TrialView(
        number=number,
        standing="failed" if failed else standing,
        sampled=found.sampled,
        parameters=found.parameters.model_dump(),
        losses={} if failed else losses,
        ladder=ladder,
        outcome=Outcome.DIVERGED if failed else None,
        running_to=ladder[0] if running else None,
        cost_per_example=1 + found.parameters.lora_r / 64,
        fold_losses={rung: tuple(loss + 0.02 * random.normal(size=FOLDS)) for rung, loss in losses.items()},
    )


def measured(resolved: ResolvedStudy, count: int) -> dict[str, Any]:
    """Milliseconds of a decision."""
    strategy, view = build(resolved), made_up(resolved, count)
    fresh = [replace(view, decision_number=view.decision_number + number) for number in range(FITS)]
    fits, memory = [], None
    for each in fresh:
        seconds, _, step = _timed(strategy, each)
        fits.append(seconds)
        memory = step.memory if isinstance(step, Advance | Start) and step.memory is not None else memory
    assert memory is not None, "no decision fitted the model"
    taken, worked, rules = [], [], dict[str, int]()
    for number in range(DECISIONS):
        each = replace(view, decision_number=view.decision_number + number, memory=memory)
        seconds, cpu_seconds, step = _timed(strategy, each)
        taken.append(seconds)
        worked.append(cpu_seconds)
        rule = str(step.numbers.get("rule")) if isinstance(step, Advance | Start) else type(step).__name__
        rules[rule] = rules.get(rule, 0) + 1
    return {
        "p50_ms": round(1000 * float(np.quantile(taken, 0.5)), 1),
        "p95_ms": round(1000 * float(np.quantile(taken, 0.95)), 1),
        "largest_ms": round(1000 * max(taken), 1),
        "p95_cpu_ms": round(1000 * float(np.quantile(worked, 0.95)), 1),
        "with_a_fit_ms": round(1000 * float(np.median(fits)), 1),
        "decisions_by_rule": rules,
    }


def _timed(strategy: Strategy, view: StudyView) -> tuple[float, float, Step]:
    """Seconds by the clock, seconds of work (less on a busy machine), and the decision."""
    start, worked = perf_counter(), process_time()
    step = strategy.propose(view)
    return perf_counter() - start, process_time() - worked, step


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default=",".join(map(str, TRIALS)), help="numbers of trials, by commas")
    counts = [int(count) for count in parser.parse_args().trials.split(",")]
    resolved = study()
    print(json.dumps({"decisions": {str(count): measured(resolved, count) for count in counts}}))


if __name__ == "__main__":
    main()
