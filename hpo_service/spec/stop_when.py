"""When a search has little left to gain."""

from typing import Annotated

from pydantic import ConfigDict, Field

from trainer.spec import Frozen


class StopWhen(Frozen):
    """The search ends once it has trained a trial to its end and expects too little of any next step."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    regret_below: Annotated[float, Field(gt=0, lt=1)]
    """As a share of the best loss (0.005 is half a percent): what the most promising next step is expected to gain."""
    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """In so many decisions in a row that weighed it, the expected gain must have been below that."""
