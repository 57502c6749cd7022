"""The article's recipe: Optuna's TPE and MedianPruner, a process with Hugging Face Trainer for every trial.

It is given what a careful user would give it: the median is taken at equal shares of the data, not at equal steps, and
a pruned trial's process is ended at once.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna

from benchmarks.recipe_trial import RecipeTrial
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
)
from trainer.spec import Parameters

STARTUP_TRIALS = 5
_ROOT = Path(__file__).resolve().parents[2]


def run_recipe(work: LiveWork, seed: int) -> Side:
    """Run the whole study, one trial at a time."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
    )
    run = _Run(work, seed)
    study.optimize(run.objective, n_trials=work.trials)
    complete = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.COMPLETE]
    return Side(
        curve=tuple(run.curve),
        seconds=run.elapsed(),
        examples=run.examples,
        trials=len(study.trials),
        complete=len(complete),
        best_loss=min(trial.value for trial in complete if trial.value is not None),
        start_seconds=0.0,
        load_average=os.getloadavg()[0],
    )


class _Run:
    """The clock and the examples of one study."""

    def __init__(self, work: LiveWork, seed: int) -> None:
        self._work, self._seed = work, seed
        self._start = time.perf_counter()
        self.curve: list[Point] = []
        self.examples = 0

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def objective(self, trial: optuna.Trial) -> float:
        loss = float("nan")
        for evaluation, loss in enumerate(self._losses(sampled(trial)), start=1):
            self.examples += self._work.rows // self._work.evaluations
            self.curve.append(Point(seconds=self.elapsed(), examples=self.examples, loss=loss))
            trial.report(loss, evaluation)
            if evaluation < self._work.evaluations and trial.should_prune():
                raise optuna.TrialPruned
        return loss

    def _losses(self, parameters: Parameters) -> Iterator[float]:
        """The losses of a trial as its process tells them; the process does not outlive the iteration."""
        work = self._work
        told = RecipeTrial(
            model=work.model,
            train=work.train,
            eval=work.eval,
            max_length=MAX_LENGTH,
            eval_batch=EVAL_BATCH,
            steps=work.rows // parameters.effective_batch,
            evaluations=work.evaluations,
            seed=self._seed,
            threads=work.threads,
            parameters=parameters,
        )
        command = [sys.executable, "-m", "benchmarks.recipe_trial", told.model_dump_json()]
        with subprocess.Popen(
            command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith('{"loss":'):  # Trainer prints its own logs in between
                        yield float(json.loads(line)["loss"])
                if process.wait() != 0:
                    raise RuntimeError(f"a trial of the recipe failed: {told.model_dump_json()}")
            finally:
                process.kill()


def sampled(trial: optuna.Trial) -> Parameters:
    """The space of both sides, asked for one by one."""
    return Parameters(
        learning_rate=trial.suggest_float("learning_rate", *LEARNING_RATE, log=True),
        lora_r=trial.suggest_categorical("lora_r", LORA_R),
        lora_alpha=trial.suggest_categorical("lora_alpha", LORA_ALPHA),
        warmup_ratio=trial.suggest_float("warmup_ratio", *WARMUP_RATIO),
        effective_batch=trial.suggest_categorical("effective_batch", EFFECTIVE_BATCH),
        lora_dropout=LORA_DROPOUT,
    )
