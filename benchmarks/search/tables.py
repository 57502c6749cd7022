"""Tables of real learning curves, as `shared/curves/README.md` describes them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """One task: configurations `u` [n, d] in the unit cube, evaluation `loss` [n, T] at T equally spaced fidelities,
    `seconds` [n, T] of each interval."""

    name: str
    u: Array
    loss: Array
    seconds: Array

    @property
    def dimensions(self) -> int:
        """Of a configuration."""
        return int(self.u.shape[1])

    @property
    def fidelities(self) -> int:
        """T."""
        return int(self.loss.shape[1])

    @cached_property
    def full_seconds(self) -> float:
        """R: mean cost of a configuration drawn at random and trained to its end."""
        return float(self.seconds.sum(axis=1).mean())

    @cached_property
    def best(self) -> float:
        """The lowest loss in the table."""
        return float(self.loss.min())

    @cached_property
    def middling(self) -> float:
        """Median final loss of a configuration drawn at random."""
        return float(np.median(self.loss[:, -1]))

    def regret(self, loss: float) -> float:
        """0 for the best loss in the table, 1 for the median final loss of random configurations."""
        return (loss - self.best) / (self.middling - self.best)


def load(path: Path) -> Table:
    """Read one `.npz`. A loss that is not a number counts as the worst number of the table."""
    with np.load(path, allow_pickle=False) as archive:
        loss = archive["loss"].astype(np.float64)
        worst = float(loss[np.isfinite(loss)].max())
        return Table(
            name=path.stem,
            u=archive["u"].astype(np.float64),
            loss=np.where(np.isfinite(loss), loss, worst),
            seconds=archive["seconds"].astype(np.float64),
        )


def load_folder(folder: Path, names: list[str] | None = None) -> list[Table]:
    """All tables of a folder, or the named ones, by name. Raises FileNotFoundError if a name has no file."""
    paths = sorted(folder.glob("*.npz")) if names is None else [folder / f"{name}.npz" for name in names]
    return [load(path) for path in paths]
