"""Freeze-thaw search: pause every trial at every rung, resume what is most likely to pay."""

from hpo_service.search.strategies.freeze_thaw.strategy import FreezeThaw

__all__ = ["FreezeThaw"]
