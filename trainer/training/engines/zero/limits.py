"""What a trial may not ask of a partitioned base."""

from trainer.common.errors import UserError
from trainer.distributed.ranks import Ranks
from trainer.spec import TrialSpec


def check(spec: TrialSpec, ranks: Ranks) -> None:
    """Raises UserError if the spec asks for what a partitioned base cannot do."""
    parameters = spec.parameters
    if spec.training.ranks != ranks.size:
        raise UserError(f"the trial is for {spec.training.ranks} ranks and this worker group has {ranks.size}")
    if parameters.use_dora:
        raise UserError("use_dora needs the whole base on one device: set use_dora to false, or ranks to 1")
    if parameters.init_lora_weights != "default":
        raise UserError(
            f"init_lora_weights {parameters.init_lora_weights} needs the whole base on one device: use default, "
            "or set ranks to 1"
        )
    if parameters.optimizer != "adamw":
        raise UserError(f"optimizer {parameters.optimizer} cannot be partitioned: use adamw, or set ranks to 1")
    if spec.model.quantization != "none":
        raise UserError(f"quantization {spec.model.quantization} cannot be partitioned: use none, or set ranks to 1")
