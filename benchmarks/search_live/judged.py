"""The recipe's best configuration, trained by our trainer: two trainers draw data in different orders, so that the
same configuration ends at losses that differ by more than the best configurations of a search do."""

import json
import subprocess
import sys
from pathlib import Path

import optuna

from benchmarks.search_live.recipe import STARTUP_TRIALS, sampled
from benchmarks.search_live.work import EFFECTIVE_BATCH, EVAL_BATCH, MAX_LENGTH, LiveWork, Side
from trainer.spec import DataSpec, ModelSpec, Parameters, TrainingSettings, TrialSpec


def best_parameters(work: LiveWork, seed: int, recipe: Side) -> Parameters:
    """What the recipe chose for its best whole trial: its sampler says it again when it is told the same losses."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
    )
    losses = iter(recipe.curve)
    chosen: dict[float, Parameters] = {}

    def objective(trial: optuna.Trial) -> float:
        parameters, loss = sampled(trial), float("nan")
        for evaluation in range(1, work.evaluations + 1):
            loss = next(losses).loss
            trial.report(loss, evaluation)
            if evaluation < work.evaluations and trial.should_prune():
                raise optuna.TrialPruned
        chosen[loss] = parameters
        return loss

    study.optimize(objective, n_trials=recipe.trials)
    if next(losses, None) is not None or recipe.best_loss not in chosen:
        raise RuntimeError(f"the recipe of seed {seed} cannot be replayed from its losses")
    return chosen[recipe.best_loss]


def retrained(work: LiveWork, seed: int, parameters: Parameters, folder: Path) -> float:
    """Its final loss as a trial of our study with that seed would have had it."""
    trial = TrialSpec(
        model=ModelSpec(path=work.model),
        data=DataSpec(train=work.train, eval=work.eval, max_length=MAX_LENGTH),
        parameters=parameters,
        training=TrainingSettings(seed=seed, micro_batch=max(EFFECTIVE_BATCH), eval_batch=EVAL_BATCH),
    )
    path = folder / f"judged-{seed}.json"
    path.write_text(trial.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "trainer", "run", str(path), "--output-dir", str(folder / f"judged-{seed}")]
    more = ["--threads", str(work.threads), "--token-cache", str(folder / "tokens")]
    said = subprocess.run([*command, *more], check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(json.loads(said[said.index("{") :])["eval_loss"])
