"""A trial in memory, in the words of `best`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from hpo_service.spec.trial_parameters import trained_with


@dataclass(frozen=True)
class TrialFacts:
    """One trial."""

    trial: FrozenTrial

    @property
    def number(self) -> int:
        """Counts from 0 within the study."""
        return self.trial.number

    @property
    def state(self) -> str:
        """Optuna's."""
        return self.trial.state.name

    @property
    def value(self) -> float | None:
        """The final loss."""
        return self.trial.values[0] if self.trial.values else None

    @property
    def intermediate(self) -> Mapping[int, float]:
        """Loss by rung."""
        return self.trial.intermediate_values

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All that the trainer was given."""
        return trained_with(self.trial.params, self.trial.user_attrs)

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """What the dispatcher wrote."""
        return self.trial.user_attrs
