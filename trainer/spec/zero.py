"""How a trial on several ranks is sharded, and what of DeepSpeed a spec may tune."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from trainer.spec.base import Frozen

Elements = Annotated[int, Field(ge=1, le=10**10)]

_OUTWARD = "no trial reports to files or services of its own"
_LOSSES = "it changes losses"
_DTYPE = "set model.dtype"
_CPU = "offload goes to host memory"
#: why a key of DeepSpeed's that people know is not among ours
_REASONS = {
    "zero_optimization": "write its keys without it",
    "stage": "several ranks always share the base by ZeRO-3",
    "train_batch_size": "set parameters.effective_batch",
    "train_micro_batch_size_per_gpu": "set training.micro_batch",
    "gradient_accumulation_steps": "it follows from effective_batch, micro_batch and ranks",
    "gradient_clipping": "set parameters.max_grad_norm",
    "optimizer": "set parameters.optimizer",
    "scheduler": "set parameters.lr_scheduler",
    "activation_checkpointing": "set training.activation_checkpointing",
    "offload_optimizer": "set training.zero.offload_optimizer",
    "offload_param": "set training.zero.offload_parameters",
    **dict.fromkeys(("bf16", "fp16", "amp", "torch_autocast", "data_types"), _DTYPE),
    **dict.fromkeys(("nvme_path", "aio", "buffer_count", "buffer_size", "max_in_cpu"), _CPU),
    **dict.fromkeys(("checkpoint", "nebula", "datastates"), "snapshots are ours"),
    **dict.fromkeys(("tensorboard", "wandb", "comet", "csv_monitor", "flops_profiler", "autotuning"), _OUTWARD),
    **dict.fromkeys(("data_efficiency", "curriculum_learning", "compression_training"), _LOSSES),
    **dict.fromkeys(("communication_data_type", "zero_quantized_weights", "zero_quantized_gradients"), _LOSSES),
    "zero_quantized_nontrainable_weights": _LOSSES,
    "zenflow": _LOSSES,
    "round_robin_gradients": "ZeRO-3 does not read it",
    **dict.fromkeys(("zero_hpz_partition_size", "mics_shard_size"), "parameters are partitioned over all ranks"),
}


class ZeroConfig(Frozen):
    """DeepSpeed's own settings that cost time or memory only, under its names. Sizes are in elements.

    Adapters are all that is reduced, so `reduce_bucket_size` (null: as large) is never more than they have.
    `pin_memory` is of what is offloaded; `wall_clock_breakdown` prints where the time of every step went.
    """

    overlap_comm: bool = True
    contiguous_gradients: bool = True
    reduce_scatter: bool = True
    reduce_bucket_size: Elements | None = None
    sub_group_size: Elements = 10**9
    stage3_prefetch_bucket_size: Annotated[int, Field(ge=0, le=10**10)] = 5 * 10**8
    stage3_param_persistence_threshold: Annotated[int, Field(ge=0, le=10**7)] = 10**6
    stage3_max_live_parameters: Elements = 10**9
    stage3_max_reuse_distance: Annotated[int, Field(ge=0, le=10**10)] = 10**9
    pin_memory: bool = True
    # Off: its timers synchronize the device several times a step, and it prints at every one.
    wall_clock_breakdown: bool = False

    @model_validator(mode="before")
    @classmethod
    def _refuse_known(cls, written: Any) -> Any:  # noqa: ANN401
        """Say why a key of DeepSpeed's is not accepted; all others that are not fields are unknown keys."""
        for key in written if isinstance(written, dict) else ():
            if key in _REASONS:
                allowed = ", ".join(cls.model_fields)
                raise ValueError(
                    f"training.zero.config may not have {key}: {_REASONS[key]}; leave it out. It may have {allowed}"
                )
        return written


class ZeroSettings(Frozen):
    """How a trial on several ranks is sharded. `config` tunes DeepSpeed.

    Adapters are allocated at `max_lora_r` on `target_modules` (None: the trial's own), so that all trials of a study
    fit into one engine; the service fills both from the search space.
    """

    offload_optimizer: bool = False
    offload_parameters: bool = False
    max_lora_r: Annotated[int, Field(ge=1, le=1024)] | None = None
    target_modules: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,-]{1,256}$")] | None = None
    config: ZeroConfig = ZeroConfig()
