"""What a study can be searched for, beside a low evaluation loss."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, model_validator

from trainer.spec import Frozen

ObjectiveName = Literal["eval_loss", "train_tokens_per_second", "cost_usd", "adapter_parameters"]
Goal = Literal["minimize", "maximize"]

_MAXIMIZED = ("train_tokens_per_second",)
TIMED = ("train_tokens_per_second", "cost_usd")
"""Measured by the clock."""


class Objective(Frozen):
    """A number that every trial has after its first slice, and which way is better."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: ObjectiveName
    """eval_loss, always the first; train_tokens_per_second of the trial's training; cost_usd of training it to its
    end, at the price of its devices; adapter_parameters, how many it trains."""
    goal: Goal
    """Follows from the name and may be left out."""

    @model_validator(mode="after")
    def _goal_makes_sense(self) -> Self:
        if self.goal != _goal(self.name):
            raise ValueError(f"{self.name} cannot be {self.goal}d; leave out its goal, which is {_goal(self.name)}")
        return self


def _goal(name: object) -> Goal:
    return "maximize" if name in _MAXIMIZED else "minimize"


def _complete(written: object) -> object:
    if isinstance(written, str):
        return {"name": written, "goal": _goal(written)}
    if isinstance(written, Mapping):
        return {"goal": _goal(written.get("name")), **written}
    return written


WrittenObjective = Annotated[Objective, BeforeValidator(_complete, json_schema_input_type=ObjectiveName | Objective)]

LOSS = Objective(name="eval_loss", goal="minimize")


def require_order(objectives: Sequence[Objective]) -> Sequence[Objective]:
    """The loss comes first and nothing comes twice; ValueError."""
    names = [objective.name for objective in objectives]
    if names[0] != LOSS.name:
        raise ValueError(f"the first objective is {names[0]}; write {LOSS.name} first, a search never goes without it")
    if len(set(names)) < len(names):
        raise ValueError(f"objectives name one twice: {', '.join(names)}")
    return objectives
