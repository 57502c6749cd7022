"""What the ranks of a worker group do in the tests of the ZeRO-3 engine: `python session.py FOLDER`, once a rank.

FOLDER holds `specs.json`, a trial by name. Rank 0 leaves `results.json`, `snapshots/` and `whole.safetensors` there.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from trainer.accounting.devices import prepare_device
from trainer.common.errors import TrainerError
from trainer.data.batches import Batch
from trainer.data.token_cache import TokenCache
from trainer.distributed.ranks import start_ranks
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import SnapshotRef, TrialSpec, Usage
from trainer.training.engines.zero.engine import ZeroEngine, ZeroTrial
from trainer.training.evaluate import Evaluation


class Session:
    """The cases, in the order in which they run; each adds to `results`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device = prepare_device(1)
        self.ranks = start_ranks(timeout_seconds=60)
        self.cache = TokenCache(folder / "tokens", 1)
        self.store = SnapshotStore(FolderStore(folder / "snapshots"))
        texts = json.loads((folder / "specs.json").read_text())
        self.specs = {name: TrialSpec.model_validate(text) for name, text in texts.items()}
        self.results: dict[str, Any] = {"rank_size": self.ranks.size}

    def engine(self, name: str) -> ZeroEngine:
        started = time.perf_counter()
        engine = ZeroEngine(self.specs[name], self.device, self.ranks, self.cache)
        self.results.setdefault("start_ms", []).append(1000 * (time.perf_counter() - started))
        return engine

    def main_engine(self) -> None:
        engine = self.engine("real-8")
        self.results["digest"] = engine.base_digest
        self.results["partition"] = self.ranks_say(partition(engine))
        self.keep("real-8", engine, until=50 * 8)
        self.keep("uneven", engine)
        self.swaps(engine)
        self.resumes(engine)
        self.agreement(engine)
        self.refusals(engine)
        self.tight(engine)
        engine.evict(engine.admit(self.specs["a"], None))
        engine.close()

    def keep(self, name: str, engine: ZeroEngine, until: int = 10**9) -> ZeroTrial:
        """Train a trial, evaluate it, write its snapshot."""
        trial = engine.admit(self.specs[name], None)
        steps = list(engine.advance(trial, until))
        evaluation = evaluated(engine, trial)
        state = engine.snapshot(trial, evaluation)
        self.results[name] = {
            "losses": [step.loss for step in steps],
            "norms": [step.gradient_norm for step in steps],
            "tokens": sum(step.tokens for step in steps),
            "flops": sum(step.flops for step in steps),
            "eval_loss": evaluation.loss,
            "example_losses": evaluation.example_losses.tolist(),
            "parameters": trial.adapter_parameters,
        }
        if self.ranks.leads:
            self.store.write(name, state, Usage())
        else:
            assert not state.adapter
            assert not state.optimizer
        return trial

    def swaps(self, engine: ZeroEngine) -> None:
        """A, B, A again in the same engine, steps of A and B taking turns, and the rows that no trial uses."""
        first = self.run("a-first", engine, "a")
        self.run("b-after-a", engine, "b")
        self.save_whole(engine)
        again = self.run("a-again", engine, "a")
        parts = zip(first, again, strict=True)
        same = [torch.equal(one[field], two[field]) for one, two in parts for field in one]
        self.results["a-again-bitwise"] = self.ranks_say(same)
        a, b = (engine.admit(self.specs[name], None) for name in "ab")
        losses: dict[str, list[float]] = {"a": [], "b": []}
        swap_ms = []
        for until in range(8, 49, 8):
            for name, trial in (("a", a), ("b", b)):
                started = time.perf_counter()
                engine._activate(trial)
                swap_ms.append(1000 * (time.perf_counter() - started))
                losses[name] += [step.loss for step in engine.advance(trial, until)]
        self.results |= {"turns": losses, "swap_ms": swap_ms}

    def run(self, name: str, engine: ZeroEngine, spec: str, until: int = 48) -> list[dict[str, torch.Tensor]]:
        """Train `spec` from its start; this rank's part of it."""
        trial = engine.admit(self.specs[spec], None)
        self.results[name] = [step.loss for step in engine.advance(trial, until)]
        self.results[f"{name}-eval"] = evaluated(engine, trial).loss
        return engine._state.take()

    def save_whole(self, engine: ZeroEngine) -> None:
        """All that is allocated, with what the trial in the engine does not use."""
        whole = {
            f"{field}/{name}": tensor
            for field in ("weight", "exp_avg", "exp_avg_sq")
            for name, tensor in engine._state.whole(field).items()
        }
        if self.ranks.leads:
            save_file(whole, self.folder / "whole.safetensors")

    def resumes(self, engine: ZeroEngine) -> None:
        """From a snapshot on disk, and whether the base shows any trace of all that."""
        part = engine.admit(self.specs["a"], None)
        losses = [step.loss for step in engine.advance(part, 24)]
        state = engine.snapshot(part, None)
        ref = self.store.write("part", state, Usage()) if self.ranks.leads else None
        engine.evict(part)
        said = self.ranks.tell(ref.model_dump_json().encode() if ref else b"")
        snapshot = self.store.read(SnapshotRef.model_validate_json(said))
        self.results["foreign"] = raised(lambda: engine.admit(self.specs["b"], snapshot))
        resumed = engine.admit(self.specs["a"], snapshot)
        assert (resumed.step, resumed.examples_seen) == (3, 24)
        self.results["resumed"] = losses + [step.loss for step in engine.advance(resumed, 48)]

    def agreement(self, engine: ZeroEngine) -> None:
        """A failure of one rank ends the slice on all of them, and the next trial is none the worse."""
        sick = engine.admit(self.specs["a"], None)
        if self.ranks.rank == 1:
            sick.parked[0]["weight"].fill_(float("nan"))
        self.results["nan"] = self.ranks_say(raised(lambda: list(engine.advance(sick, 8))))
        self.run("a-after-nan", engine, "a")
        failure = MemoryError("host memory is full") if self.ranks.rank == 1 else None
        self.results["oom"] = self.ranks_say(raised(lambda: self.ranks.agree(failure)))
        self.results["told"] = self.ranks_say(self.ranks.tell(b"to all" if self.ranks.leads else b"").decode())

    def refusals(self, engine: ZeroEngine) -> None:
        names = [name for name in self.specs if name.startswith("refused-")]
        self.results["refused"] = {name: raised(partial(engine.admit, self.specs[name], None)) for name in names}

    def tight(self, engine: ZeroEngine) -> None:
        """Trial a where its micro-batch is predicted not to fit."""
        spec, whole = self.specs["a"], engine._base.nll
        usable_bytes = engine._admission.usable_bytes
        engine._admission.usable_bytes = engine.plan(spec, None).prediction.total - 1
        trial = engine.admit(spec, None)
        sizes: list[int] = []

        def counted(batch: Batch) -> torch.Tensor:
            sizes.append(batch.examples)
            return whole(batch)

        engine._base.nll = counted  # type: ignore[method-assign]
        losses = [step.loss for step in engine.advance(trial, 48)]
        del engine._base.nll
        engine._admission.usable_bytes = usable_bytes
        self.results["tight"] = {"losses": losses, "planned": trial.plan.micro_batch, "largest": max(sizes)}

    def fresh_engine(self) -> None:
        """Trial b in an engine that has seen no other trial, and whose small parameters do not persist."""
        engine = self.engine("b-fresh")
        self.run("b-fresh", engine, "b-fresh")
        engine.close()

    def low_precision(self) -> None:
        """A bfloat16 base with activation checkpointing, parameters and optimizer on the host."""
        engine = self.engine("bfloat16")
        self.results["bfloat16-digest"] = engine.base_digest
        self.keep("bfloat16", engine, until=24)
        engine.close()

    def ranks_say(self, value: Any) -> list[Any]:
        """What each rank says to a question, in their order."""
        text = json.dumps(value).encode()
        said = torch.zeros(4096, dtype=torch.uint8)
        said[: len(text)] = torch.tensor(list(text))
        return [json.loads(part.numpy().tobytes().rstrip(b"\0")) for part in self.ranks.gather(said)]


def partition(engine: ZeroEngine) -> dict[str, int]:
    """How many elements of the base there are, how many this rank has, and how many it could read at once."""
    base: list[Any] = [weight for _, weight in engine._base._weights]
    assert all(isinstance(weight.ds_id, int) for weight in base)
    trained: list[Any] = list(engine._slots.weights.values())
    return {
        "all": sum(weight.ds_numel for weight in base),
        "mine": sum(weight.ds_tensor.numel() for weight in base),
        "gathered": sum(weight.numel() for weight in base),
        "adapters": sum(weight.ds_numel for weight in trained),
        "my_adapters": sum(weight.ds_tensor.numel() for weight in trained),
    }


def evaluated(engine: ZeroEngine, trial: ZeroTrial) -> Evaluation:
    batches = engine.evaluate(trial)
    while True:
        try:
            next(batches)
        except StopIteration as end:
            evaluation: Evaluation = end.value
            return evaluation


def raised(run: Callable[[], Any]) -> str:
    """Type and words of what `run` raises."""
    try:
        run()
    except TrainerError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(folder: Path) -> None:
    session = Session(folder)
    for case in (session.main_engine, session.fresh_engine, session.low_precision):
        started = time.process_time()
        case()
        session.results.setdefault("cpu_seconds", {})[case.__name__] = time.process_time() - started
    if session.ranks.leads:
        (folder / "results.json").write_text(json.dumps(session.results))
    # DeepSpeed's exit handlers wait for each other; nothing of this process is needed any more.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
