"""Whether a training step of this process can be repeated bit for bit, found out by repeating one."""

from dataclasses import dataclass
from typing import Any

import torch

from trainer.accounting.devices import allow_unrepeatable_kernels, lacks_repeatable_kernel
from trainer.common.errors import Diverged, TrainerError
from trainer.common.outcomes import is_out_of_memory
from trainer.snapshots.snapshot import TrialState
from trainer.spec import Notice, TrialSpec
from trainer.training.engines.base import Engine, Step


@dataclass(frozen=True)
class _Taken:
    """A first step of a trial and the state that it left."""

    step: Step
    state: TrialState


def is_repeatable(engine: Engine[Any], spec: TrialSpec, micro_batch: int) -> bool | None:
    """Take the first step of `spec` twice, of one micro-batch on one rank; None if it cannot be taken at all.

    It is a step of a real trial, so that the kernels which are tried are those that will train. In a worker group all
    ranks call it together.
    """
    parameters = spec.parameters.model_copy(update={"effective_batch": micro_batch * spec.training.ranks})
    probe = spec.model_copy(update={"parameters": parameters})
    try:
        return _equal(_first_step(engine, probe, micro_batch), _first_step(engine, probe, micro_batch))
    except Diverged:
        return None
    except Exception as error:
        if lacks_repeatable_kernel(error):
            allow_unrepeatable_kernels(error)
            return False
        # A group whose rank is short of memory ends at once and is told so: the others are in the middle of the step.
        if is_out_of_memory(error) and spec.training.ranks == 1:
            return None
        raise


def not_repeatable(device: str) -> Notice:
    """What is told of a worker on which it is not."""
    return Notice(
        kind="not_repeatable",
        message=(
            f"on {device} the same training step gave other bits when it was taken again: losses are right, but a "
            "trial that is resumed or tried again may differ in its last digits"
        ),
    )


def _first_step(engine: Engine[Any], spec: TrialSpec, micro_batch: int) -> _Taken:
    trial = engine.admit(spec, None, micro_batch)
    try:
        step = next(engine.advance(trial, 1))
        taken = _Taken(step, engine.snapshot(trial, None))
    except Exception as error:
        # What all ranks raise together leaves a group that goes on. What one of them does must not wait for the others.
        if spec.training.ranks == 1 or isinstance(error, TrainerError):
            engine.evict(trial)
        raise
    engine.evict(trial)
    return taken


def _equal(one: _Taken, other: _Taken) -> bool:
    """The first step may have a learning rate of zero, so its gradients count: in its norm and in the optimizer."""
    said = [(taken.step.loss, taken.step.gradient_norm) for taken in (one, other)]
    return said[0] == said[1] and all(
        _same(mine, yours)
        for mine, yours in ((one.state.adapter, other.state.adapter), (one.state.optimizer, other.state.optimizer))
    )


def _same(mine: dict[str, torch.Tensor], yours: dict[str, torch.Tensor]) -> bool:
    return mine.keys() == yours.keys() and all(torch.equal(tensor, yours[name]) for name, tensor in mine.items())
