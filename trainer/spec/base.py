"""What every value of the contract is made of."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

API_VERSION: Literal["hpo/v1"] = "hpo/v1"

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
UnitFloat = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=512)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """Base of every value that crosses the boundary: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"  #: the rung was reached and evaluated
    OOM = "oom"  #: out of device or host memory: a fact about the trial
    DIVERGED = "diverged"  #: the loss became non-finite or exploded: a fact about the trial
    DATA_ERROR = "data_error"  #: the data cannot be read or holds nothing to train on
    USER_ERROR = "user_error"  #: the spec asks for something impossible (unknown model, no such module)
    INFRA_ERROR = "infra_error"  #: disk, driver, bug: the slice may be tried again
    LOST = "lost"  #: the worker vanished or made no progress; written by the service
    PREEMPTED = "preempted"  #: stopped at a step boundary on request, with a snapshot

    @property
    def about_the_trial(self) -> bool:
        """A fact about the trial's configuration, not about the machine that ran it or the study."""
        return self in (Outcome.OOM, Outcome.DIVERGED)
