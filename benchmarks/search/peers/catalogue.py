"""The peers by name. Their libraries are not imported before a run is asked for."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.search.digests import digest
from benchmarks.search.replay import MakeSearcher

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE.parent / "peers-requirements.txt"
SIMULATION = HERE.parent / "simulation.py"
ARTICLE = "article"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`module` drives the `packages`. Slow peers get fewer seeds than the others, the article more."""

    label: str
    module: str
    packages: tuple[str, ...]
    most_seeds: int = 10

    def digest(self, table: Path) -> str:
        """Of the module that drives it, the versions of its libraries, the simulation and the table."""
        pins = [line for line in REQUIREMENTS.read_text().splitlines() if _package(line) in self.packages]
        return digest([HERE / f"{self.module}.py", SIMULATION, table], *pins)


def _package(line: str) -> str:
    return line.partition("==")[0].partition("[")[0]


def _optuna(label: str, most_seeds: int = 10) -> Peer:
    return Peer(label=label, module="optuna_study", packages=("optuna",), most_seeds=most_seeds)


PEERS = {
    ARTICLE: _optuna("article: Optuna TPE + Median, 50 trials", most_seeds=20),
    "optuna_tpe_halving": _optuna("Optuna TPE + SuccessiveHalving"),
    "optuna_tpe_hyperband": _optuna("Optuna TPE + Hyperband"),
    "optuna_gp": _optuna("Optuna GP", most_seeds=1),
    "syne_asha": Peer(label="Syne Tune ASHA", module="syne", packages=("syne-tune",)),
    "syne_bohb": Peer(label="Syne Tune BOHB", module="syne", packages=("syne-tune",), most_seeds=2),
    "ray_asha_optuna": Peer(label="Ray Tune ASHA + Optuna search", module="ray_tune", packages=("ray", "optuna")),
    "smac_multi_fidelity": Peer(label="SMAC multi-fidelity", module="smac_facade", packages=("smac",), most_seeds=1),
}


def make_peer(name: str) -> MakeSearcher:
    """The searcher of a peer; imports its library."""
    made: MakeSearcher = import_module(f"benchmarks.search.peers.{PEERS[name].module}").STRATEGIES[name]
    return made
