"""The DeepSpeed configuration of a worker group."""

from typing import Any

from trainer.spec import Dtype, ZeroSettings

_TUNED_ELSEWHERE = {"pin_memory", "wall_clock_breakdown", "reduce_bucket_size"}


def deepspeed_config(settings: ZeroSettings, dtype: Dtype, trained_elements: int | None = None) -> dict[str, Any]:
    """DeepSpeed's configuration for a base of `dtype`, tuned by the spec.

    Batch sizes, clipping, optimizer and schedule are a trial's, so the engine sets them at every step. Without
    `trained_elements` it is for loading the base in its dtype. With it (the elements of all adapters together, which
    bounds the buffer for gradients) it is for training: adapters stay float32 beside a bfloat16 base, as in the
    resident engine, and DeepSpeed's own bf16 mode, which would round them, stays off.
    """
    tuned = settings.config
    zero: dict[str, Any] = {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        **tuned.model_dump(exclude=_TUNED_ELSEWHERE),
    }
    offload = {"device": "cpu", "pin_memory": tuned.pin_memory}
    if settings.offload_optimizer:
        zero["offload_optimizer"] = offload
    if settings.offload_parameters:
        zero["offload_param"] = dict(offload)
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "wall_clock_breakdown": tuned.wall_clock_breakdown,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Our AdamW also steps where its state was moved to the CPU, so that a trial is the same with and without.
        "zero_force_ds_cpu_optimizer": False,
    }
    if trained_elements is None:
        return config | {"bf16": {"enabled": dtype == "bfloat16"}}
    zero["reduce_bucket_size"] = min(tuned.reduce_bucket_size or 5 * 10**8, trained_elements)
    return config
