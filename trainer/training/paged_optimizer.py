"""bitsandbytes' paged 8-bit AdamW, whose memory comes back when a trial is evicted. Imported only where it can run."""

from collections import defaultdict
from typing import Any

import torch
from bitsandbytes.optim import PagedAdamW8bit as _PagedAdamW8bit

# bitsandbytes never frees paged memory, so what one trial leaves is kept for the next one of the same size.
_free: dict[tuple[int, torch.dtype, int], list[torch.Tensor]] = defaultdict(list)


class PagedAdamW8bit(_PagedAdamW8bit):  # type: ignore[misc, unused-ignore]
    """Takes its paged buffers from those that were released, and new ones only if there are none."""

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self._buffers: list[Any] = []

    def get_state_buffer(self, p: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A zeroed buffer shaped like `p`."""
        free = _free[(p.numel(), dtype, p.device.index or 0)]
        paged: Any
        if free:
            buffer: Any = free.pop()
            paged = buffer.view(p.shape).zero_()
            paged.is_paged, paged.page_deviceid = True, buffer.page_deviceid
        else:
            paged = super().get_state_buffer(p, dtype)
            if not getattr(paged, "is_paged", False):
                return paged  # type: ignore[no-any-return]
            self.page_mng.paged_tensors.pop()
        self._buffers.append(paged)
        return paged  # type: ignore[no-any-return]

    def release(self) -> None:
        """Give all paged buffers back."""
        if self._buffers:
            torch.cuda.synchronize()
        for buffer in self._buffers:
            _free[(buffer.numel(), buffer.dtype, buffer.page_deviceid or 0)].append(buffer)
        self._buffers.clear()
