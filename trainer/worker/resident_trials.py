"""The warm base of a worker and the trials that stay on it between their slices."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from trainer.accounting.devices import allow_unrepeatable_kernels, device_uuids, lacks_repeatable_kernel
from trainer.accounting.meter import DeviceUse
from trainer.accounting.nvml import Gpus
from trainer.common.errors import UserError
from trainer.data.token_cache import TokenCache
from trainer.distributed.ranks import Ranks
from trainer.memory.peak_estimate import MemoryPrediction
from trainer.model.base_model import BaseModel
from trainer.spec import Notice, TrialSpec
from trainer.training.engines.base import AdmittedTrial, Engine
from trainer.training.engines.resident import ResidentEngine
from trainer.worker.memory_leaks import LeakWatch
from trainer.worker.repeatability import is_repeatable


class Residents:
    """Holds one engine, the trials that run on it, and up to `capacity` idle ones, least recently used first to go.

    Memory is given out by prediction: idle trials leave until the one that comes fits, and if running ones are in the
    way it waits for them.

    In a worker group every rank has its own, and all of them do the same.
    """

    def __init__(
        self,
        device: torch.device,
        capacity: int,
        token_cache: TokenCache,
        leaks: LeakWatch | None = None,
        ranks: Ranks = Ranks(),
        *,
        repeats_steps: bool = False,
    ) -> None:
        """With `repeats_steps`, `repeats` finds out for every base that becomes warm whether steps are repeatable."""
        self.ranks = ranks
        self.device = device
        self.use = DeviceUse(device, Gpus(device_uuids(device)))
        self._capacity = capacity
        self._token_cache = token_cache
        self._leaks = leaks or LeakWatch(device)
        self._warm: Engine[Any] | None = None
        self._idle: OrderedDict[str, tuple[str, AdmittedTrial]] = OrderedDict()
        self._running: dict[int, MemoryPrediction] = {}
        self._repeats_steps = repeats_steps
        self._repeated = False

    def engine(self, spec: TrialSpec) -> Engine[Any]:
        """An engine for `spec`, loaded if none that fits is warm; call only while no trial of another is running.

        Raises:
            UserError: the model cannot be loaded, or the trial is for another number of ranks.
        """
        if self._warm is None or not self._warm.fits(spec):
            self.cool()
            try:
                self._warm = self._loaded(spec)
            except RuntimeError as error:
                if not lacks_repeatable_kernel(error):
                    raise
                allow_unrepeatable_kernels(error)
                self._warm = self._loaded(spec)
        return self._warm

    def repeats(self, engine: Engine[Any], spec: TrialSpec, micro_batch: int) -> bool | None:
        """Whether a step of `spec` is the same when it is taken again; None if that was found out for this base before.

        Call it while the base holds nothing but trials that are idle.
        """
        if not self._repeats_steps or self._repeated:
            return None
        self._repeated = True
        verdict = is_repeatable(engine, spec, micro_batch)
        free_memory()
        return verdict

    def _loaded(self, spec: TrialSpec) -> Engine[Any]:
        if self.ranks.size > 1:
            # DeepSpeed is an extra, and takes a second to import.
            from trainer.training.engines.zero.engine import ZeroEngine

            return ZeroEngine(spec, self.device, self.ranks, self._token_cache)
        if spec.training.ranks > 1:
            raise UserError(f"the trial is for {spec.training.ranks} ranks and this worker has one")
        return ResidentEngine(BaseModel(spec.model, self.device), self._token_cache)

    def cool(self) -> None:
        """Drop the base and all idle trials. Raises BaseChangedError."""
        if self._warm is not None:
            while self._idle:
                self._evict_oldest(self._warm)
            self._warm.close()
        self._warm = None
        self._repeated = False
        self._leaks.restart()
        free_memory()

    @property
    def scratch(self) -> Path:
        """Where there is room for large temporary files: the folder of tokenized data."""
        return self._token_cache.folder

    @property
    def shared(self) -> bool:
        """Whether more than one trial is running."""
        return len(self._running) > 1

    def make_room(self, engine: Engine[Any], wanted: MemoryPrediction) -> bool:
        """Evict idle trials until `wanted` fits beside those that run; False, with none evicted, if it must wait.

        Raises:
            BaseChangedError: the base was written to.
        """
        running = self._running.values()
        transient = max([wanted.transient, *(other.transient for other in running)])
        needed = wanted.base + wanted.resting + transient + sum(other.resting for other in running)
        if running and needed > engine.usable_bytes:
            return False
        while self._idle and needed + self._idle_bytes() > engine.usable_bytes:
            self._evict_oldest(engine)
        return True

    def take(self, trial_digest: str, snapshot_digest: str) -> AdmittedTrial | None:
        """The idle trial whose state is exactly that snapshot, which then is no longer idle."""
        kept = self._idle.get(trial_digest)
        if kept is None or kept[0] != snapshot_digest:
            return None
        del self._idle[trial_digest]
        return kept[1]

    def enter(self, trial: AdmittedTrial) -> None:
        """The trial runs from now on, until `keep` or `evict`."""
        self._running[id(trial)] = trial.plan.prediction

    def keep(self, engine: Engine[Any], trial: AdmittedTrial, snapshot_digest: str) -> None:
        """Let a trial stay whose state is that snapshot; may evict others. Raises BaseChangedError."""
        self._running.pop(id(trial), None)
        older = self._idle.pop(trial.digest, None)
        if older is not None:
            self.evict(engine, older[1])
        self._idle[trial.digest] = (snapshot_digest, trial)
        while len(self._idle) > self._capacity:
            self._evict_oldest(engine)

    def evict(self, engine: Engine[Any], trial: AdmittedTrial) -> None:
        """Forget a trial and give its memory back to the device. Raises BaseChangedError."""
        self._running.pop(id(trial), None)
        engine.evict(trial)
        free_memory()

    def read_memory(self) -> Notice | None:
        """Take a reading after a slice, whose trial stays or has left; a notice if the worker leaks."""
        known = self._idle_bytes() + sum(other.resting for other in self._running.values())
        return self._leaks.read(known)

    def _evict_oldest(self, engine: Engine[Any]) -> None:
        _, (_, oldest) = self._idle.popitem(last=False)
        self.evict(engine, oldest)

    def _idle_bytes(self) -> int:
        return sum(trial.plan.prediction.resting for _, trial in self._idle.values())


def free_memory() -> None:
    """Return cached device memory, so that what one trial used is there for the next."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
