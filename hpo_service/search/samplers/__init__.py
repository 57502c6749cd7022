"""Propose the next assignment: a fresh sampler by name on what the view says.

Nothing is remembered between calls, so a proposal depends on the view alone.
"""

from hpo_service.search.samplers.proposal import MAX_ASKS, propose_assignment
from hpo_service.spec import SamplerName

__all__ = ["MAX_ASKS", "SamplerName", "propose_assignment"]
