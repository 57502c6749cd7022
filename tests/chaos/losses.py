"""What the engine of the chaos worker computes: a pure function of parameters, seed and the examples that were seen.

Every example leaves its mark in the state, so a trial that is resumed in the wrong place has another loss for ever.
"""

import math
from collections.abc import Iterable

from trainer.spec import Parameters

#: above this learning rate a trial diverges at its second step
LARGEST_LEARNING_RATE = 3e-2
_MODULUS = 2**61 - 1


def marked(mark: int, seed: int, positions: Iterable[int]) -> int:
    """The mark of a trial after it has seen these positions of its data as well."""
    for position in positions:
        mark = (mark * 1_000_003 + seed * 7919 + position + 1) % _MODULUS
    return mark


def loss_of(parameters: Parameters, examples: int, mark: int) -> float:
    """A smooth bowl around a learning rate of 3e-3, lower the more examples were seen, with the mark in its digits."""
    distance = abs(math.log10(parameters.learning_rate) - math.log10(3e-3))
    bowl = 2.0 + 0.3 * distance + 0.01 * abs(parameters.lora_r - 8) + 1.0 / math.sqrt(max(1, examples))
    return bowl + 1e-3 * (mark % 997) / 997


def expected_loss(parameters: Parameters, seed: int, examples: int) -> float:
    """The loss of a trial that saw each of its first `examples` examples once, in order."""
    return loss_of(parameters, examples, marked(0, seed, range(examples)))


def reached(until_examples: int, effective_batch: int, total_examples: int) -> int:
    """Examples seen at the first step at or past `until_examples`, or at the trial's end."""
    return min(total_examples, math.ceil(until_examples / effective_batch) * effective_batch)
