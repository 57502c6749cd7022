"""How the devices of a machine are shared out between workers of one device and groups of several, and their bases."""

from collections.abc import Sequence

from trainer.spec import ModelSpec, TrainingSettings


def base_of(model: ModelSpec, training: TrainingSettings) -> str:
    """What a worker has to have loaded for a trial: trials of the same base follow each other without a reload."""
    if training.ranks == 1:
        return model.model_dump_json()
    room = training.zero.model_dump_json(include={"max_lora_r", "target_modules"})
    return f"{training.ranks} {model.model_dump_json()} {room}"


def group_sizes(wanted: Sequence[int], devices: int) -> list[int]:
    """Sizes of the worker groups that `devices` devices are best used for; what is left over stays unused.

    `wanted` are the sizes that studies need, most urgent first, repeats ignored. Each size that fits gets one group
    before the most urgent ones get more. Nothing wanted: single devices.
    """
    sizes = [size for size in dict.fromkeys(wanted) if size <= devices] or [1]
    chosen: list[int] = []
    free = devices
    for size in sizes:
        if size <= free:
            chosen.append(size)
            free -= size
    for size in sizes:
        more = free // size
        chosen += [size] * more
        free -= size * more
    return chosen
