"""Arguments for `transformers.TrainingArguments(**json)`, transformers 5.24 or newer."""

from typing import Any

from hpo_service.exporters.base import Rendered, in_bfloat16, json_text, names_not_in, settings_not_in
from hpo_service.exporters.training_arguments import SAID, schedule_arguments, training_arguments, warmup_steps
from trainer.spec import TrialFile


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
        media_type="application/json",
        file_name="training_args.json",
        dropped=(*dropped, *settings_not_in(document), *(("dtype",) if in_bfloat16(document) is None else ())),
    )


def _run_name(document: TrialFile) -> str:
    facts = document.provenance
    return f"{facts['study']}-trial-{facts.get('trial')}" if "study" in facts else "trial"
