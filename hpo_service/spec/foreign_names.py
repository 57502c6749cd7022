"""What other trainers and search tools call things that a study says: the name here, and how values are converted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_HF, _PEFT, _TRL, _AXOLOTL, _FACTORY = "Hugging Face", "PEFT", "TRL", "Axolotl", "LLaMA-Factory"
_WANDB, _OPTUNA, _RAY, _KATIB = "W&B", "Optuna", "Ray Tune", "Katib"

_BATCH = (
    "space.effective_batch: examples an optimizer step, which is the batch of one GPU × gradient accumulation × GPUs; "
    "training.micro_batch bounds what one GPU takes at once"
)
_TARGETS = (
    "space.target_modules, one text: all-linear, attention, mlp, or module names joined by commas ('q_proj,v_proj')"
)
_LENGTH = "data.max_length, in tokens"
_RUNGS = "nothing to say: trials are evaluated at rungs, which search.first_rung_fraction begins"
_KEPT = "nothing to say: the service keeps snapshots and results itself; leave it out"
_NF4 = "model.quantization, which is none or nf4"
_DTYPE = "model.dtype"
_STRATEGY = "search.strategy: freeze_thaw, asha, successive_halving, hyperband, median or none"
_TRIALS, _PARALLEL = "budget.max_trials", "budget.max_parallel"
_OBJECTIVES = "search.objectives; without it the loss on the evaluation rows, which is minimized"


@dataclass(frozen=True)
class ForeignName:
    """Whose name it is, and what is written in its place."""

    whose: str
    here: str


def _table(whose: str, **names: str) -> dict[str, ForeignName]:
    return {name: ForeignName(whose, here) for name, here in names.items()}


_NAMES: dict[str, ForeignName] = {
    **_table(
        _HF,
        per_device_train_batch_size=_BATCH,
        train_batch_size=_BATCH,
        batch_size=_BATCH,
        gradient_accumulation_steps=_BATCH,
        per_device_eval_batch_size="training.eval_batch",
        num_train_epochs="space.epochs",
        max_steps="space.epochs, which is max_steps × effective_batch / training rows",
        lr="space.learning_rate",
        lr_scheduler_type="space.lr_scheduler: cosine, linear, constant or wsd, each with warmup_ratio",
        warmup_steps="space.warmup_ratio, which is warmup_steps / optimizer steps in all",
        optim="space.optimizer: adamw or paged_adamw_8bit",
        beta1="space.adam_beta1",
        beta2="space.adam_beta2",
        model_name_or_path="model.path, a folder",
        model_name="model.path, a folder",
        base_model_name_or_path="model.path, a folder",
        torch_dtype=_DTYPE,
        bf16=f"{_DTYPE}: bfloat16",
        fp16=f"{_DTYPE}; float16 is not trained in, use bfloat16",
        attn_implementation="model.attention",
        load_in_4bit=f"{_NF4} (load_in_4bit: true is nf4)",
        load_in_8bit=f"{_NF4}; 8 bit is not trained on",
        bnb_4bit_quant_type=_NF4,
        gradient_checkpointing="training.activation_checkpointing",
        deepspeed="resources.gpus_per_trial: above 1 the base is sharded with ZeRO-3",
        fsdp="resources.gpus_per_trial: above 1 the base is sharded with ZeRO-3",
        eval_strategy=_RUNGS,
        evaluation_strategy=_RUNGS,
        eval_steps=_RUNGS,
        logging_steps=_RUNGS,
        save_strategy="training.checkpoint_every_steps",
        save_steps="training.checkpoint_every_steps",
        output_dir=_KEPT,
        report_to=_KEPT,
        run_name="metadata.name",
        train_dataset="data.train, a file or folder of rows",
        eval_dataset="data.eval, a file or folder of rows",
    ),
    "trust_remote_code": ForeignName(_HF, "nothing to say: a model's own code is never run; leave it out"),
    **_table(
        _PEFT,
        r="space.lora_r",
        rank="space.lora_r",
        alpha="space.lora_alpha",
        dropout="space.lora_dropout",
        task_type="nothing to say: trials are of causal language models; leave it out",
    ),
    **_table(
        _TRL,
        lora_task_type="nothing to say: trials are of causal language models; leave it out",
        max_seq_length=_LENGTH,
        max_seq_len=_LENGTH,
        dataset_name="data.train, a file or folder of rows",
        assistant_only_loss="data.learn: response",
        completion_only_loss="data.learn: response",
        use_peft="nothing to say: every trial is LoRA; leave it out",
    ),
    **_table(
        _AXOLOTL,
        base_model="model.path, a folder",
        micro_batch_size=_BATCH,
        eval_batch_size="training.eval_batch",
        num_epochs="space.epochs",
        lora_target_modules=_TARGETS,
        lora_target_linear="space.target_modules: all-linear",
        adapter="nothing to say: every trial is LoRA; leave it out. QLoRA is model.quantization: nf4",
        peft_use_rslora="space.use_rslora",
        peft_use_dora="space.use_dora",
        peft_init_lora_weights="space.init_lora_weights: default, pissa or olora",
        sequence_len=_LENGTH,
        sample_packing="data.packing",
        train_on_inputs="data.learn: response, or all for train_on_inputs: true",
        datasets="data.train, one file or folder of rows",
        test_datasets="data.eval, one file or folder of rows",
        val_set_size="data.eval_fraction, a share of the rows",
        flash_attention="model.attention: flash_attention_2, or auto",
    ),
    **_table(
        _FACTORY,
        lora_rank="space.lora_r",
        lora_target=_TARGETS,
        cutoff_len=_LENGTH,
        neat_packing="data.packing",
        val_size="data.eval_fraction, a share of the rows",
        dataset="data.train, a file or folder of rows",
        dataset_dir="data.train, a file or folder of rows",
        template="nothing to say: rows are rendered with the model's own chat template; leave it out",
        train_on_prompt="data.learn: response, or all for train_on_prompt: true",
        finetuning_type="nothing to say: every trial is LoRA; leave it out",
        stage="nothing to say: trials are supervised fine-tuning; leave it out",
        pissa_init="space.init_lora_weights: pissa",
        quantization_bit=f"{_NF4} (4 is nf4)",
        flash_attn="model.attention: flash_attention_2, or auto",
    ),
    **_table(
        _WANDB,
        parameters="space, name by name: {low, high, log, step}, {choices: […]} or a value",
        method=f"{_STRATEGY}; search.sampler says where new trials come from",
        metric=_OBJECTIVES,
        early_terminate=_STRATEGY,
        run_cap=_TRIALS,
        program="nothing to say: the service trains itself; leave it out",
        command="nothing to say: the service trains itself; leave it out",
    ),
    **_table(
        _OPTUNA,
        n_trials=_TRIALS,
        n_jobs=_PARALLEL,
        timeout="budget.max_wall_hours, in hours",
        direction=_OBJECTIVES,
        directions=_OBJECTIVES,
        pruner=_STRATEGY,
        study_name="metadata.name",
        n_startup_trials="search.startup_trials",
        enqueue_trial="enqueue, a list of points",
    ),
    **_table(
        _RAY,
        num_samples=_TRIALS,
        max_concurrent_trials=_PARALLEL,
        search_alg="search.sampler",
        scheduler=_STRATEGY,
        param_space="space",
        time_budget_s="budget.max_wall_hours, in hours",
        resources_per_trial="resources.gpus_per_trial",
    ),
    **_table(
        _KATIB,
        maxTrialCount=_TRIALS,
        parallelTrialCount=_PARALLEL,
        objective=_OBJECTIVES,
        algorithm=_STRATEGY,
    ),
}

_LOW = ("low", "min", "lower", "minval", "min_value", "MinValue")
_HIGH = ("high", "max", "upper", "maxval", "max_value", "MaxValue")
_CHOICES = ("choices", "values", "vals", "categories", "list")
_STEP = ("step", "q")
_KINDS = ("distribution", "type", "scale", "scale_type", "ScalingType", "parameterType")
_OURS = frozenset({"low", "high", "log", "step", "type", "when", "choices", "expr", "value"})
_FORM_KEYS = frozenset({*_LOW, *_HIGH, *_CHOICES, *_STEP, *_KINDS, "feasibleSpace", "base", "mu", "sigma"}) - _OURS
#: W&B's distribution whose bounds are exponents of e
_EXPONENTS = "log_uniform"
_MOST_EXPONENT = 300
_SUGGEST = ("suggest_", "tune.", "loguniform", "log_uniform", "uniform", "choice", "randint", "interval(", "hp.")


def foreign_name(name: str) -> str | None:
    """The sentence about a name that another tool uses for what is called otherwise here; None if it is not known."""
    found = _NAMES.get(name)
    if found is None:
        return None
    place = "there" if found.here.startswith("nothing") else "here it"
    return f"{name!r} is {found.whose}'s name; {place} is {found.here}."


def foreign_form(name: str, written: Mapping[str, object]) -> tuple[str, str] | None:
    """(the first key that is another tool's, a sentence with the same form as it is written here); None if none is."""
    keys = [str(key) for key in written if str(key) in _FORM_KEYS or str(key).startswith("suggest_")]
    if not keys:
        return None
    inner = written.get("feasibleSpace")
    flat = {**written, **inner} if isinstance(inner, Mapping) else dict(written)
    listed = " and ".join((", ".join(f"`{key}`" for key in keys[:-1]), f"`{keys[-1]}`")) if keys[1:] else f"`{keys[0]}`"
    same = _converted(flat)
    write = f"write {own_name(name)}: {same}" if same else "write {low, high, log, step}, {choices: […]} or a value"
    be = "are other tools' names" if keys[1:] else "is another tool's name"
    return keys[0], f"{listed} {be} in the form of {name}; {write}."


def own_name(name: str) -> str:
    """What another tool's name of a parameter is called here; any other name stays."""
    found = _NAMES.get(name)
    here = "" if found is None else found.here.partition(",")[0].partition(":")[0]
    return here.removeprefix("space.") if here.startswith("space.") else name


def foreign_call(name: str, written: str) -> str | None:
    """A sentence with the same form as it is written here, of a search tool's call such as `tune.loguniform(1, 2)`.

    None if the text is none.
    """
    if not (written.lstrip().startswith(_SUGGEST) and "(" in written):
        return None
    function, _, rest = written.partition("(")
    inside = [part.strip(" []()'\"") for part in rest.split(",")]
    form: dict[str, object] = {"choices": [part for part in inside if part]}
    if not any(word in function for word in ("choice", "categorical")):
        numbers = [part for part in inside if _number(part) is not None]
        form = {"low": numbers[0], "high": numbers[1], "type": written} if len(numbers) == 2 else {}
    same = _converted(form)
    write = f"write {own_name(name)}: {same}" if same else "write {low, high, log, step}, {choices: […]} or a value"
    return f"It looks like another tool's call; {write}."


def _converted(form: Mapping[str, object]) -> str | None:
    choices = next((form[key] for key in _CHOICES if key in form), None)
    if isinstance(choices, list | tuple) and choices:
        return f"{{choices: [{', '.join(_text(value) for value in choices)}]}}"
    low = _number(next((form[key] for key in _LOW if key in form), None))
    high = _number(next((form[key] for key in _HIGH if key in form), None))
    if low is None or high is None:
        return None
    kinds = [str(form[key]).lower() for key in _KINDS if key in form]
    log = form.get("log") is True or any("log" in kind for kind in kinds)
    if _EXPONENTS in kinds and low <= 0 and abs(low) < _MOST_EXPONENT and abs(high) < _MOST_EXPONENT:
        low, high = float(f"{math.exp(low):.3g}"), float(f"{math.exp(high):.3g}")
    step = _number(next((form[key] for key in _STEP if key in form), None))
    parts = [f"low: {_text(low)}", f"high: {_text(high)}"]
    parts += ["log: true"] if log else [f"step: {_text(step)}"] if step is not None else []
    return f"{{{', '.join(parts)}}}"


def _number(value: object) -> float | int | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else value


def _text(value: object) -> str:
    """As YAML reads it back, whichever version of YAML that is: with a dot before an exponent."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        text = f"{value:g}"
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))[:80]
    return str(value)[:80]
