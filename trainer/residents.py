"""The warm base of a worker and the trials that stay on it between their slices."""

from collections import OrderedDict

import torch

from trainer.engines.resident import ResidentEngine, ResidentTrial
from trainer.model import BaseModel
from trainer.spec import ModelSpec


class Residents:
    """Holds one engine, and up to `capacity` idle trials of it, least recently used first to go."""

    def __init__(self, device: torch.device, capacity: int) -> None:
        self.device = device
        self._capacity = capacity
        self._warm: tuple[ModelSpec, ResidentEngine] | None = None
        self._idle: OrderedDict[str, tuple[str, ResidentTrial]] = OrderedDict()

    def engine(self, model: ModelSpec) -> ResidentEngine:
        """The engine on `model`, loaded if it is not warm; call only while no trial of another base is running.

        Raises:
            UserError: the model cannot be loaded.
        """
        if self._warm is None or self._warm[0] != model:
            self.cool()
            self._warm = (model, ResidentEngine(BaseModel(model, self.device)))
        return self._warm[1]

    def cool(self) -> None:
        """Drop the base and all idle trials."""
        self._idle.clear()
        self._warm = None
        free_memory()

    def take(self, trial_digest: str, snapshot_digest: str) -> ResidentTrial | None:
        """The idle trial whose state is exactly that snapshot, which then is no longer idle."""
        kept = self._idle.get(trial_digest)
        if kept is None or kept[0] != snapshot_digest:
            return None
        del self._idle[trial_digest]
        return kept[1]

    def keep(self, engine: ResidentEngine, trial: ResidentTrial, snapshot_digest: str) -> None:
        """Let a trial stay whose state is that snapshot; may evict others. Raises BaseChangedError."""
        older = self._idle.pop(trial.digest, None)
        if older is not None:
            self.evict(engine, older[1])
        self._idle[trial.digest] = (snapshot_digest, trial)
        while len(self._idle) > self._capacity:
            _, (_, oldest) = self._idle.popitem(last=False)
            self.evict(engine, oldest)

    def evict(self, engine: ResidentEngine, trial: ResidentTrial) -> None:
        """Forget a trial and give its memory back to the device. Raises BaseChangedError."""
        engine.evict(trial)
        free_memory()


def free_memory() -> None:
    """Return cached device memory, so that what one trial used is there for the next."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
