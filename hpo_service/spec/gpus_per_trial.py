"""What a study on several GPUs a trial fixes for all of its trials, and what it cannot have."""

from collections.abc import Iterator

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.spec.space import SearchSpace
from hpo_service.spec.study import StudySpec
from trainer.spec import TrainingSettings


def study_training(spec: StudySpec, space: SearchSpace) -> TrainingSettings:
    """The training settings of every trial: its ranks, and with several of them adapters of one size for all trials.

    Raises:
        InvalidSpec: what only one GPU can do is asked of several, or a value that we fill in was written.
    """
    ranks = spec.resources.gpus_per_trial
    problems = [*_written(spec), *(_impossible(spec, space) if ranks > 1 else ())]
    if problems:
        raise InvalidSpec(problems[0].detail, problems=problems)
    if ranks == 1:
        return spec.training
    zero = spec.training.zero.model_copy(
        update={"max_lora_r": int(space.largest("lora_r")), "target_modules": _union(space.values("target_modules"))}
    )
    return spec.training.model_copy(update={"ranks": ranks, "zero": zero})


def require_within(space: SearchSpace, training: TrainingSettings) -> None:
    """Raise InvalidSpec if a widened space no longer fits the adapters that its trials share."""
    shared, wanted = training.zero.max_lora_r, int(space.largest("lora_r"))
    if training.ranks > 1 and shared is not None and wanted > shared:
        detail = (
            f"lora_r would reach {wanted}, but the trials of this study share adapters of rank {shared} on "
            f"{training.ranks} GPUs; clone the study to change that."
        )
        raise InvalidSpec(detail, problems=[Problem(detail=detail, pointer="/space/lora_r")])


def _written(spec: StudySpec) -> Iterator[Problem]:
    """Values that have one source only."""
    if "ranks" in spec.training.model_fields_set and spec.training.ranks != spec.resources.gpus_per_trial:
        yield Problem(
            detail=f"training.ranks is {spec.training.ranks}, but it follows from resources.gpus_per_trial "
            f"({spec.resources.gpus_per_trial}); leave it out.",
            pointer="/training/ranks",
        )
    for name, source in (("max_lora_r", "lora_r"), ("target_modules", "target_modules")):
        if name in spec.training.zero.model_fields_set and getattr(spec.training.zero, name) is not None:
            yield Problem(
                detail=f"training.zero.{name} follows from {source} in the space; leave it out.",
                pointer=f"/training/zero/{name}",
            )


def _impossible(spec: StudySpec, space: SearchSpace) -> Iterator[Problem]:
    ranks = spec.resources.gpus_per_trial
    if spec.model.quantization != "none":
        yield Problem(
            detail=f"model.quantization {spec.model.quantization} works on one GPU only and "
            f"resources.gpus_per_trial is {ranks}; set it to none, or gpus_per_trial to 1.",
            pointer="/model/quantization",
        )
    if True in space.values("use_dora"):
        yield Problem(
            detail=f"use_dora works on one GPU only and resources.gpus_per_trial is {ranks}; "
            "leave it out of the space, or set gpus_per_trial to 1.",
            pointer="/space/use_dora",
        )
    for init in sorted({"pissa", "olora"} & space.values("init_lora_weights")):
        yield Problem(
            detail=f"init_lora_weights {init} works on one GPU only and resources.gpus_per_trial is {ranks}; "
            "use default, or set gpus_per_trial to 1.",
            pointer="/space/init_lora_weights",
        )


def _union(choices: set[object]) -> str:
    """One selection of modules that holds all of these; all linear ones where names and groups would be mixed."""
    words = sorted(map(str, choices))
    if len(words) == 1:
        return words[0]
    if any(word in ("all-linear", "attention", "mlp") for word in words):
        return "all-linear"
    return ",".join(sorted({name for word in words for name in word.split(",") if name}))
