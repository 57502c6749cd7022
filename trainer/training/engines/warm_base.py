"""What an engine knows of the base that it keeps warm, whatever the number of its ranks."""

from trainer.accounting.meter import ModelShape
from trainer.memory.micro_batch import Admission
from trainer.model.base_model import BaseModel


class WarmBase:
    """The facts that every engine offers of its base; see `Engine`."""

    _base: BaseModel
    _admission: Admission

    @property
    def base_digest(self) -> str:
        """Identity of the base's weights, whatever the number of ranks."""
        return self._base.digest

    @property
    def shape(self) -> ModelShape:
        """What FLOP formulas need to know of the base."""
        return self._base.shape

    @property
    def attention(self) -> str:
        """The attention implementation that was chosen."""
        return self._base.attention

    @property
    def usable_bytes(self) -> int:
        """Memory of one device that trials may use; the base, or the part of it that is there, included."""
        return self._admission.usable_bytes
