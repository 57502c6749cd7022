"""Learning rate of a step: pure functions, equal to the Hugging Face schedules of the same names."""

import math

from trainer.spec import Parameters


def total_steps(examples: int, effective_batch: int) -> int:
    """Optimizer steps that see `examples`; the last one may be partial."""
    return math.ceil(examples / effective_batch)


def learning_rate(parameters: Parameters, step: int, steps: int) -> float:
    """Learning rate of the 0-based `step` of `steps`; the warm-up starts at 0."""
    warmup_steps = math.ceil(parameters.warmup_ratio * steps)
    if step < warmup_steps:
        return parameters.learning_rate * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    match parameters.lr_scheduler:
        case "cosine":
            factor = 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear":
            factor = 1.0 - progress
        case "constant":
            factor = 1.0
        case "wsd":
            decay_steps = math.ceil(parameters.decay_ratio * steps)
            decayed = (step - (steps - decay_steps)) / max(1, decay_steps)
            factor = 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, decayed))))
    return parameters.learning_rate * factor
