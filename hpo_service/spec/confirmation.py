"""What a confirmation trains: fixed when the search ends, kept with the study that runs it."""

from typing import Annotated, Any

from pydantic import Field

from trainer.spec import Frozen, Parameters

CONFIRMATION_SUFFIX = "/confirm"
"""NAME/confirm confirms NAME; no user can take the name, because it holds a slash."""


class Candidate(Frozen):
    """A searched trial that is trained again. `loss` is the search's, after `examples`; a run takes `run_examples`.

    The loss is None of a baseline that the search could not measure.
    """

    trial_number: int
    baseline: bool
    sampled: dict[str, Any]
    parameters: Parameters
    loss: float | None
    examples: int
    run_examples: int


class ConfirmationPlan(Frozen):
    """The candidates, the search's best first, and the seeds that they are trained with, in this order.

    `max_examples` is what all runs together may train on. `ended` says why the search ended.
    """

    candidates: tuple[Candidate, ...]
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]
    max_examples: int
    ended: str

    def candidate(self, trial_number: int) -> Candidate:
        """The candidate with this number in the search."""
        return next(one for one in self.candidates if one.trial_number == trial_number)
