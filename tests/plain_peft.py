"""The loop that people write with transformers and PEFT, given the trial's start and noise: what we must equal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import LlamaForCausalLM, get_scheduler

from trainer.data.batches import Batch
from trainer.model.keyed_dropout import KeyedDropout, NoiseClock
from trainer.model.keyed_random import token_keys
from trainer.model.neftune import neftune_noise
from trainer.spec import Parameters, TrialSpec
from trainer.training.engines.resident import ResidentEngine, ResidentTrial

STEPS = 100
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"lr_scheduler": "linear"},
    "dropout": {"lora_dropout": 0.1, "lr_scheduler": "constant"},
    "rslora_loraplus": {"use_rslora": True, "loraplus_lr_ratio": 4.0, "learning_rate": 1e-3},
    "dora": {"use_dora": True, "lora_dropout": 0.1},
    "dora_loraplus": {"use_dora": True, "loraplus_lr_ratio": 4.0, "learning_rate": 1e-3},
    "pissa": {"init_lora_weights": "pissa", "lora_dropout": 0.1, "learning_rate": 1e-3},
    "olora_rslora": {"init_lora_weights": "olora", "use_rslora": True, "learning_rate": 1e-4},
    "dora_pissa": {"use_dora": True, "init_lora_weights": "pissa", "lora_dropout": 0.1, "learning_rate": 1e-3},
    "neftune_wsd": {"neftune_noise_alpha": 5.0, "lora_dropout": 0.05, "lr_scheduler": "wsd", "decay_ratio": 0.3},
}
SCHEDULERS = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}


def labels_of(batch: Batch) -> torch.Tensor:
    """What Hugging Face's loss takes: the learned tokens, -100 elsewhere."""
    labels = torch.full_like(batch.input_ids, -100).flatten()
    labels[batch.positions + 1] = batch.targets
    return labels.view_as(batch.input_ids)


def plain_scheduler(optimizer: torch.optim.Optimizer, values: Parameters, steps: int) -> Any:
    """Hugging Face's own schedule of the same name."""
    specific = {"num_decay_steps": -(-int(values.decay_ratio * steps * 1000) // 1000)}
    return get_scheduler(
        SCHEDULERS.get(values.lr_scheduler, values.lr_scheduler),
        optimizer,
        -(-int(values.warmup_ratio * steps * 1000) // 1000),
        steps,
        specific if values.lr_scheduler == "wsd" else None,
    )


def plain_model(folder: Path, trial: ResidentTrial, clock: NoiseClock) -> PeftModel:
    """Stock PEFT at the trial's state; where the trial subtracts a frozen product, the base has it taken out."""
    values = trial.spec.parameters
    config = LoraConfig(
        r=values.lora_r,
        lora_alpha=int(values.lora_alpha),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        use_rslora=values.use_rslora,
        use_dora=values.use_dora,
    )
    model = get_peft_model(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), config)
    state = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in trial.adapter.weights.items():
            stem, _, kind = name.removesuffix(".weight").rpartition(".")
            state[f"{stem}.{kind}.default.weight"].copy_(weight)
            if kind == "lora_B" and name in trial.adapter.frozen:
                a, b = (trial.adapter.frozen[f"{stem}.{part}.weight"] for part in ("lora_A", "lora_B"))
                layer: Any = model.get_submodule(stem)
                layer.get_base_layer().weight -= layer.scaling["default"] * b @ a
    modules: dict[str, Any] = dict(model.named_modules())
    for name, module in modules.items():
        if hasattr(module, "lora_dropout") and values.lora_dropout:
            module_name = name.removeprefix("base_model.model.")
            module.lora_dropout["default"] = KeyedDropout(values.lora_dropout, module_name, clock)
    return model.train()


@contextmanager
def noisy_embeddings(model: PeftModel, clock: NoiseClock, alpha: float) -> Iterator[None]:
    """Hugging Face's NEFTune hook, with our numbers."""

    def perturb(module: torch.nn.Module, inputs: object, embedded: torch.Tensor) -> torch.Tensor:
        assert clock.tokens is not None
        return embedded + neftune_noise(clock.tokens, embedded, alpha)

    embedding: Any = model.get_input_embeddings()
    handle = embedding.register_forward_hook(perturb) if alpha else None
    yield
    if handle is not None:
        handle.remove()


def plain_losses(folder: Path, trial: ResidentTrial, steps: int) -> list[float]:
    """Losses of the first `steps` steps from the trial's present state: whole batches, attention mask, their loss."""
    values, clock = trial.spec.parameters, NoiseClock()
    model = plain_model(folder, trial, clock)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=values.learning_rate,
        loraplus_lr_ratio=values.loraplus_lr_ratio,
        loraplus_weight_decay=values.weight_decay,
        betas=(values.adam_beta1, values.adam_beta2),
        eps=values.adam_epsilon,
    )
    schedule = plain_scheduler(optimizer, values, -(-trial.total_examples // values.effective_batch))
    losses = []
    with noisy_embeddings(model, clock, values.neftune_noise_alpha):
        for step in range(steps):
            start = step * values.effective_batch
            chosen = trial.order.indices(start, min(start + values.effective_batch, trial.total_examples))
            batch = trial.data.train.batch(chosen, torch.device("cpu"))
            clock.tokens = token_keys(trial.spec.training.seed, start, batch)
            mask = (batch.example_of >= 0).long()
            loss = model(input_ids=batch.input_ids, attention_mask=mask, labels=labels_of(batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, values.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def largest_difference(
    name: str, folder: Path, engine: ResidentEngine, make_spec: Callable[..., TrialSpec]
) -> tuple[float, float]:
    """(largest difference of a loss with the options of that name, how far the loss fell).

    A whole run of `STEPS` steps, the last one of a partial batch.
    """
    spec = make_spec(
        **{"epochs": 21.5, "warmup_ratio": 0.1, "weight_decay": 0.1, "learning_rate": 2e-3, **OPTIONS[name]}
    )
    trial = engine.admit(spec, None)
    expected = plain_losses(folder, trial, STEPS)
    losses = [step.loss for step in engine.advance(trial, trial.total_examples)]
    return max(abs(ours - theirs) for ours, theirs in zip(losses, expected, strict=True)), losses[0] - losses[-1]
