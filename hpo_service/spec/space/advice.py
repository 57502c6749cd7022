"""What experience says about a space that is valid: sentences, never errors."""

from collections.abc import Iterator

from hpo_service.spec.space.core import PROBES, Space
from hpo_service.spec.space.dimensions import Categories, NumberChoices

MIN_STEPS = 100
_RARE = 0.25


def advice(space: Space, max_trials: int) -> list[str]:
    """Warnings about a space, each a sentence with the number that caused it."""
    return [*_about_values(space), *_about_shape(space, max_trials)]


def _about_values(space: Space) -> Iterator[str]:
    rates = [probe.parameters.learning_rate for probe in space.probes]
    if min(rates) < 1e-6 or max(rates) > 5e-3:
        yield (
            f"learning_rate reaches from {min(rates):.1e} to {max(rates):.1e}; LoRA has rarely been best outside "
            "1e-6 to 5e-3."
        )
    ranks = [probe.parameters.lora_r for probe in space.probes]
    alpha = space.expressions.get("lora_alpha")
    if alpha is not None and "lora_r" in alpha.names and max(ranks) > 4 * min(ranks):
        yield (
            f"lora_alpha follows lora_r, which varies from {min(ranks)} to {max(ranks)}: the best learning rate then "
            "moves with the rank; a constant lora_alpha separates them."
        )
    if max(ranks) > 256:
        yield f"lora_r reaches {max(ranks)}; ranks above 256 cost memory and have rarely been better."
    batch = space.largest("effective_batch")
    if batch > 128:
        yield f"effective_batch reaches {batch:g}; LoRA loses more than full fine-tuning above 128."
    yield from _about_steps(space)


def _about_steps(space: Space) -> Iterator[str]:
    rows = space.facts.get("train_rows")
    if rows is None:
        return
    steps = min(rows * probe.parameters.epochs / probe.parameters.effective_batch for probe in space.probes)
    if steps < MIN_STEPS:
        yield (
            f"some trials take only {max(1, round(steps))} optimizer steps ({rows} rows); below {MIN_STEPS} the result "
            "says little: lower effective_batch or raise epochs."
        )


def _about_shape(space: Space, max_trials: int) -> Iterator[str]:
    for name in space.dimensions:
        form = space.forms[name]
        if isinstance(form, Categories | NumberChoices) and len(form.values) == 1:
            yield f"{name} has one choice, {form.values[0]!r}; write the bare value."
    count = len(space.dimensions)
    if count > 8 and max_trials < 30:
        yield f"{count} parameters vary but there are only {max_trials} trials; 30 or more are needed above 8."
    unused = [name for name in space.dimensions if not any(name in probe.sampled for probe in space.probes)]
    if unused:
        yield f"{', '.join(unused)} may never be used; look at the `when` conditions."
    share = len(space.probes) / (PROBES + 2)
    if share < _RARE:
        yield (
            f"only about {share:.0%} of the space can be trained, most often because {space.commonest_obstacle()}; "
            "narrow the ranges."
        )
