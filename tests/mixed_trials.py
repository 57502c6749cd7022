"""Trials of every kind on one base, driven in scrambled turns, and the same trials alone."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainer.common.errors import Diverged
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import SnapshotRef, TrialSpec, Usage
from trainer.training.engines.resident import ResidentEngine, ResidentTrial

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"lora_dropout": 0.2},
    "wide": {"lora_r": 16, "lora_dropout": 0.5, "target_modules": "q_proj,v_proj", "micro_batch": 3, "seed": 1},
    "rslora": {"use_rslora": True, "lora_dropout": 0.1, "lr_scheduler": "wsd"},
    "dora": {"use_dora": True, "lora_dropout": 0.1, "seed": 2, "activation_checkpointing": True},
    "pissa": {"init_lora_weights": "pissa", "lora_dropout": 0.1, "learning_rate": 1e-3, "lora_r": 6},
    "olora": {"init_lora_weights": "olora", "use_dora": True, "learning_rate": 1e-4, "effective_batch": 5},
    "loraplus": {"loraplus_lr_ratio": 8.0, "learning_rate": 1e-3, "weight_decay": 0.1, "lora_dropout": 0.3},
    "neftune": {"neftune_noise_alpha": 5.0, "lora_dropout": 0.1, "activation_checkpointing": True},
}


@dataclass
class Run:
    """What a trial gave so far; `trial` is None while it is preempted, `saved` its last snapshot."""

    spec: TrialSpec
    trial: ResidentTrial | None = None
    saved: SnapshotRef | None = None
    losses: list[float] = field(default_factory=list)
    final: torch.Tensor | None = None


def weights_of(trial: ResidentTrial) -> torch.Tensor:
    """All trained weights in one vector."""
    return torch.cat([weight.detach().flatten() for weight in trial.adapter.parameters])


def alone(engine: ResidentEngine, spec: TrialSpec) -> Run:
    """The trial by itself, from start to end."""
    run = Run(spec, engine.admit(spec, None))
    assert run.trial is not None
    run.losses = [step.loss for step in engine.advance(run.trial, 10**9)]
    run.final = weights_of(run.trial)
    return run


class Company:
    """Trials that share engines: each turn draws who is admitted, advanced, preempted, moved, evaluated or poisoned."""

    def __init__(self, engines: list[ResidentEngine], specs: list[TrialSpec], root: Path, seed: int) -> None:
        self.runs = [Run(spec) for spec in specs]
        self._engines = engines
        self._on = [0] * len(specs)
        self._store = SnapshotStore(FolderStore(root))
        self._draw = random.Random(seed)
        self._written = 0

    def finish(self) -> None:
        """Take turns until every trial has ended."""
        while any(run.final is None for run in self.runs):
            number = self._draw.choice([n for n, run in enumerate(self.runs) if run.final is None])
            run = self.runs[number]
            if run.trial is None:
                self._admit(number, run)
                continue
            action = self._draw.choices([self._step, self._preempt, self._evaluate, self._poison], [12, 2, 1, 1])[0]
            action(self._engines[self._on[number]], run)

    def _admit(self, number: int, run: Run) -> None:
        self._on[number] = self._draw.randrange(len(self._engines))
        snapshot = self._store.read(run.saved) if run.saved else None
        run.trial = self._engines[self._on[number]].admit(run.spec, snapshot)

    def _step(self, engine: ResidentEngine, run: Run) -> None:
        assert run.trial is not None
        until = run.trial.examples_seen + self._draw.choice((1, 1, 20))
        run.losses += [step.loss for step in engine.advance(run.trial, until)]
        if run.trial.examples_seen >= run.trial.total_examples:
            run.final = weights_of(run.trial)
            engine.evict(run.trial)

    def _preempt(self, engine: ResidentEngine, run: Run) -> None:
        assert run.trial is not None
        self._written += 1
        run.saved = self._store.write(f"s/{self._written}", engine.snapshot(run.trial, None), Usage())
        engine.evict(run.trial)
        run.trial = None

    def _evaluate(self, engine: ResidentEngine, run: Run) -> None:
        assert run.trial is not None
        for _ in engine.evaluate(run.trial):
            pass

    def _poison(self, engine: ResidentEngine, run: Run) -> None:
        """Another trial of the same kind comes, becomes NaN, and is pruned."""
        sick = engine.admit(run.spec, None)
        with torch.no_grad():
            for weight in sick.adapter.parameters:
                weight.fill_(float("nan"))
        try:
            next(engine.advance(sick, 1))
        except Diverged:
            engine.evict(sick)
        else:
            raise AssertionError("NaN weights gave a finite loss")


def differing(
    make_engine: Callable[..., ResidentEngine],
    make_spec: Callable[..., TrialSpec],
    kinds: list[str],
    dtype: str,
    root: Path,
    seeds: list[int],
) -> list[str]:
    """Kinds whose losses or weights in any scrambled company are not those alone to the bit."""
    specs = [make_spec(dtype=dtype, epochs=1.0, **KINDS[kind]) for kind in kinds]
    solo = [alone(make_engine(dtype=dtype), spec) for spec in specs]
    wrong = []
    for seed in seeds:
        company = Company([make_engine(dtype=dtype), make_engine(dtype=dtype)], specs, root / str(seed), seed)
        company.finish()
        for kind, one, other in zip(kinds, solo, company.runs, strict=True):
            assert one.final is not None
            assert other.final is not None
            if one.losses != other.losses or not torch.equal(one.final, other.final):
                wrong.append(f"{kind} in company {seed}")
    return wrong
