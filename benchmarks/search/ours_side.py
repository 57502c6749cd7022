"""The strategies of the service by name, and a process that replays them.

`python -m benchmarks.search.ours_side FOLDER`, see `replay.serve`. To compare one more strategy, add it to `OURS`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.search.digests import digest
from benchmarks.search.ours import UNLIMITED, MakeStrategy, Ours
from benchmarks.search.replay import MakeSearcher, serve
from benchmarks.search.tables import Table
from hpo_service.search.strategies import Asha, FreezeThaw, Hyperband, Median, NoPruning, SuccessiveHalving
from hpo_service.spec import SamplerName

HERE = Path(__file__).resolve().parent
SEARCH = HERE.parents[1] / "hpo_service" / "search"
SHARED = (
    HERE / "ours.py",
    HERE / "simulation.py",
    *(SEARCH / "strategies" / f"{name}.py" for name in ("base", "ranking", "nearness", "places")),
)
FREEZE_THAW = "freeze_thaw"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A strategy with a sampler, on rungs as far apart as the service lays them. `source` is its file or package."""

    label: str
    make: MakeStrategy
    source: str
    sampler: SamplerName | None = "tpe"
    rung_factor: float = 3.0
    max_trials: int = UNLIMITED

    def searcher(self, table: Table, workers: int, seed: int) -> Ours:
        """As `replay.MakeSearcher`."""
        return Ours(
            table,
            self.make,
            workers=workers,
            seed=seed,
            sampler=self.sampler or "random",
            rung_factor=self.rung_factor,
            max_trials=self.max_trials,
        )

    def digest(self, table: Path) -> str:
        """Of the strategy, its sampler, the simulation and the table."""
        samplers = [SEARCH / "samplers"] if self.sampler else []
        facts = f"{self.sampler} {self.rung_factor} {self.max_trials}"
        return digest([SEARCH / "strategies" / self.source, *samplers, *SHARED, table], facts)


OURS = {
    FREEZE_THAW: Entry(
        label="freeze_thaw (default)",
        make=lambda space, total: FreezeThaw(space, lambda _epochs: total),
        source="freeze_thaw",
        sampler=None,
        rung_factor=1.7,
    ),
    "asha": Entry(label="asha, tpe", make=lambda _space, _total: Asha(3), source="asha.py"),
    "asha_random": Entry(label="asha, random", make=lambda _space, _total: Asha(3), source="asha.py", sampler="random"),
    "hyperband": Entry(label="hyperband, tpe", make=lambda _space, _total: Hyperband(3), source="hyperband.py"),
    "successive_halving": Entry(
        label="successive_halving, tpe, 200 trials",
        make=lambda _space, _total: SuccessiveHalving(3),
        source="successive_halving.py",
        max_trials=200,
    ),
    "median": Entry(label="median, tpe", make=lambda _space, _total: Median(3), source="median.py"),
    "none": Entry(label="none, tpe", make=lambda _space, _total: NoPruning(), source="none.py"),
}


def make_ours(name: str) -> MakeSearcher:
    """The searcher of a strategy."""
    return OURS[name].searcher


if __name__ == "__main__":
    serve(make_ours, Path(sys.argv[1]))
