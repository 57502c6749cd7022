"""Documents to export in tests."""

from typing import Any

from trainer.spec import DataSpec, ModelSpec, Parameters, TrainingSettings, TrialFile

PROVENANCE = {
    "study": "s",
    "trial": 4,
    "metric": "eval_loss",
    "loss": 2.0,
    "examples": 100,
    "train_rows": 100,
    "base_digest": "b" * 64,
    "date": "2026-11-24T00:00:00Z",
    "generator": "hpo-service 0.1.0",
}
#: a value of every hyperparameter that is not its default and does something
OTHER: dict[str, Any] = {
    "learning_rate": 3.21e-5,
    "lora_r": 8,
    "lora_alpha": 64.0,
    "lora_dropout": 0.05,
    "target_modules": "q_proj,v_proj",
    "use_rslora": True,
    "use_dora": True,
    "init_lora_weights": "olora",
    "loraplus_lr_ratio": 4.0,
    "neftune_noise_alpha": 5.0,
    "optimizer": "paged_adamw_8bit",
    "effective_batch": 24,
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "lr_scheduler": "linear",
    "decay_ratio": 0.2,
    "epochs": 1.5,
    "max_grad_norm": 0.3,
    "adam_beta1": 0.85,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-6,
}


def document(
    *,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    **parameters: Any,
) -> TrialFile:
    """Best parameters; each section differs from its defaults by what is given."""
    return TrialFile(
        kind="BestParams",
        metadata={"name": "s"},
        model=ModelSpec(**{"path": "models/base", "dtype": "float32", **(model or {})}),
        data=DataSpec(**{"train": "train.jsonl", **(data or {})}),
        parameters=Parameters(**parameters),
        training=TrainingSettings(**(training or {})),
        provenance=PROVENANCE if provenance is None else provenance,
    )
