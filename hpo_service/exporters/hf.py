"""Arguments for `transformers.TrainingArguments(**json)`, transformers 5.24 or newer."""

from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from hpo_service.exporters.base import Rendered, in_bfloat16, json_text, names_not_in, settings_not_in
from hpo_service.exporters.training_arguments import (
    ARGUMENT_GROUPS,
    ARGUMENT_RIVALS,
    SAID,
    schedule_arguments,
    training_arguments,
    warmup_steps,
)
from hpo_service.exporters.values import Layout
from trainer.spec import TrialFile

LAYOUT = Layout(
    groups=MappingProxyType(
        {
            **ARGUMENT_GROUPS,
            **dict.fromkeys(("run_name", "activation_checkpointing", "logging_nan_inf_filter"), Group.RUN),
        }
    ),
    whole=frozenset({"lr_scheduler_kwargs"}),
    rivals=ARGUMENT_RIVALS,
    per_device="per_device_train_batch_size",
    accumulation="gradient_accumulation_steps",
)


def render_hf(document: TrialFile) -> Rendered:
    """The optimizer's half of the trial; the adapter's half is the format `peft`. For one process."""
    schedule, scheduled = schedule_arguments(document)
    arguments: dict[str, Any] = {
        "run_name": _run_name(document),
        **training_arguments(document),
        **schedule,
        "warmup_steps": warmup_steps(document),
        "bf16": in_bfloat16(document),
        "activation_checkpointing": document.training.activation_checkpointing,
        "logging_nan_inf_filter": False,
    }
    dropped = names_not_in(document, SAID | {"warmup_ratio", "lr_scheduler", "decay_ratio"})
    if not scheduled:
        dropped = (*dropped, "lr_scheduler", "decay_ratio")
    return Rendered(
        text=json_text({name: value for name, value in arguments.items() if value is not None}) + "\n",
        values=LAYOUT.values(arguments),
        batch=LAYOUT.split(document),
        media_type="application/json",
        file_name="training_args.json",
        dropped=(*dropped, *settings_not_in(document), *(("dtype",) if in_bfloat16(document) is None else ())),
    )


def _run_name(document: TrialFile) -> str:
    facts = document.provenance
    return f"{facts['study']}-trial-{facts.get('trial')}" if "study" in facts else "trial"
