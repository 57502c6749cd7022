"""What a study knows of earlier ones: stored with it when it is created, so that decisions depend on nothing else."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from trainer.spec import Frozen

MOST_STUDIES = 10
MOST_TRIALS = 200
FEWEST_TRIALS = 4


class Traits(Frozen):
    """What a study's model and data are like. None: the files do not say."""

    architecture: str
    model_parameters: int | None
    row_bytes: float
    """Mean size of a training row in its file."""


class PastStudy(Frozen):
    """The trials of an earlier study.

    `points` hold real values by name, of the parameters that the new study samples. `losses` are those after
    `examples`, carried there along the common curve of that study where a trial stopped before. `good` are the indices
    of the points that ranked in the best quarter of all trials of that study, those without a point here included: only
    these are offered as known to be good. Studies that are older than this rule have none.
    """

    study: str
    similarity: Annotated[float, Field(ge=0, le=1)]
    examples: int
    points: tuple[dict[str, Any], ...]
    losses: tuple[float, ...]
    good: tuple[int, ...] = ()


def best_quarter(losses: Sequence[float]) -> list[int]:
    """The indices of the best quarter, best first; the best alone of fewer than eight."""
    order = sorted(range(len(losses)), key=lambda index: (losses[index], index))
    return order[: max(1, len(order) // 4)]
