"""The article's recipe: an Optuna study that starts a process for every trial."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import optuna

from benchmarks.recipe_trial import RecipeTrial
from benchmarks.turnover_work import EVAL_BATCH, MAX_LENGTH, SEED, Work
from trainer.spec import Parameters

_LORA_R = (8, 16, 32, 64)
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was measured. `losses` are the final ones, token-weighted, by configuration."""

    seconds: float
    import_seconds: float
    losses: tuple[float, ...]
    load_average: float


def run_recipe(work: Work) -> Recipe:
    """Run the configurations one after the other; the driver's own imports are not counted."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=SEED),
        pruner=optuna.pruners.NopPruner(),  # the article prunes; here every trial goes to its end
    )
    for parameters in work.configurations:
        study.enqueue_trial(parameters.model_dump(include={"learning_rate", "lora_r", "lora_alpha", "warmup_ratio"}))
    start = time.perf_counter()
    study.optimize(lambda trial: _objective(trial, work), n_trials=len(work.configurations))
    seconds = time.perf_counter() - start
    return Recipe(
        seconds=seconds,
        import_seconds=sum(float(trial.user_attrs["imports"]) for trial in study.trials),
        losses=tuple(float(trial.value) for trial in study.trials if trial.value is not None),
        load_average=os.getloadavg()[0],
    )


def _objective(trial: optuna.Trial, work: Work) -> float:
    parameters = Parameters(
        learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        lora_r=trial.suggest_categorical("lora_r", _LORA_R),
        lora_alpha=trial.suggest_categorical("lora_alpha", tuple(2.0 * rank for rank in _LORA_R)),
        warmup_ratio=trial.suggest_float("warmup_ratio", 0.03, 0.15),
        lora_dropout=work.configurations[0].lora_dropout,
        effective_batch=work.configurations[0].effective_batch,
    )
    told = RecipeTrial(
        model=work.model,
        train=work.train,
        eval=work.eval,
        max_length=MAX_LENGTH,
        eval_batch=EVAL_BATCH,
        steps=work.steps,
        seed=SEED,
        threads=work.threads,
        parameters=parameters,
    )
    command = [sys.executable, "-m", "benchmarks.recipe_trial", told.model_dump_json()]
    process = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    if process.returncode != 0:
        raise RuntimeError(f"a trial of the recipe failed:\n{process.stderr[-2000:]}")
    answer = json.loads(process.stdout.splitlines()[-1])
    trial.set_user_attr("imports", answer["seconds"]["imports"])
    for half, loss in enumerate(answer["losses"], start=1):
        trial.report(loss, half)
    return float(answer["losses"][-1])
