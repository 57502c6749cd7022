"""Warm start in simulation: a task is searched with what the other tasks of its family have shown, and without.

    python -m benchmarks.search.warm --curves FOLDER [--tasks a,b] [--seeds 10] [--workers 4] [--rows 200]

The family of `taskset_03` are all other tables whose name begins with `taskset`. Of each, `--rows` configurations drawn
at random and trained to their end are the past (0: all). `cold` has no past, `warm` has it, `reversed` has it with
every ranking turned round. Prints one line a task, a Markdown table for development and held-apart tasks, and as its
last line one JSON object:

- `speedup`: bill at which cold's mean regret reaches its own final value, by the bill at which warm's does; geometric
  mean over the tasks, with the standard error of its logarithm;
- `lost_reversed`: the same with the reversed past, as a share of the bill that is lost (negative: won);
- `regret`: mean regret and its standard error at every bill of `--bills`.
"""

import argparse
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.ours import Ours, space_of
from benchmarks.search.simulation import Outcome, simulate
from benchmarks.search.tables import Array, Table, load_folder
from hpo_service.search_space import SearchSpace
from hpo_service.strategies import FreezeThaw
from hpo_service.strategies.freeze_thaw.cube import Cube
from hpo_service.strategies.freeze_thaw.past import Past, PastTable

#: what constants of warm start were chosen on; all other tasks are held apart
DEVELOPMENT = ("lcbench_126025", "lcbench_189862", "taskset_03", "taskset_08")
WAYS = ("cold", "warm", "reversed")
_GRID = 400


@dataclass(frozen=True)
class Runs:
    """What one way of searching one task came to: `regret` [seeds, bills] on an even grid of bills."""

    task: str
    way: str
    bills: Array
    regret: Array

    def at(self, bill: float) -> Array:
        """Regrets [seeds] for a bill."""
        found: Array = self.regret[:, int(np.searchsorted(self.bills, bill))]
        return found

    def bill_for(self, regret: float) -> float:
        """The bill at which the mean regret is no larger; infinite if it never is."""
        reached = np.flatnonzero(self.regret.mean(axis=0) <= regret + 1e-12)
        return float(self.bills[reached[0]]) if len(reached) else math.inf


def family(table: Table, tables: Iterable[Table]) -> list[Table]:
    """The other tables of the same family."""
    kind = table.name.split("_")[0]
    return [other for other in tables if other.name.split("_")[0] == kind and other.name != table.name]


def past_of(table: Table, tables: Sequence[Table], rows: int, *, turned: bool) -> Past:
    """What is known of the other tasks; `turned`: with every ranking reversed."""
    known = []
    for other in family(table, tables):
        random = np.random.default_rng(sum(other.name.encode()))
        chosen = random.permutation(len(other.u))[: rows or None]
        losses = other.loss[chosen, -1]
        known.append(PastTable(study=other.name, points=other.u[chosen], losses=-losses if turned else losses))
    return Past(Cube(space_of(table)), known)


def run(table: Table, past: Past | None, *, workers: int, seed: int, budget: float) -> Outcome:
    """One search."""

    def make(space: SearchSpace, total: int) -> FreezeThaw:
        return FreezeThaw(space, lambda _: total, past=past)

    return simulate(table, Ours(table, make, workers=workers, seed=seed), workers=workers, budget=budget)


def compare(table: Table, tables: Sequence[Table], options: argparse.Namespace) -> dict[str, Runs]:
    """All ways of searching one task."""
    pasts = {
        "cold": None,
        "warm": past_of(table, tables, options.rows, turned=False),
        "reversed": past_of(table, tables, options.rows, turned=True),
    }
    bills = np.linspace(0, options.budget, _GRID + 1)
    found = {}
    for way in options.ways.split(","):
        outcomes = [
            run(table, pasts[way], workers=options.workers, seed=options.first_seed + seed, budget=options.budget)
            for seed in range(options.seeds)
        ]
        regret = np.array([[_regret(table, outcome, bill) for bill in bills] for outcome in outcomes])
        found[way] = Runs(table.name, way, bills, regret)
    return found


def _regret(table: Table, outcome: Outcome, bill: float) -> float:
    """A search that has no result yet has the median loss of random configurations."""
    loss = outcome.loss_at(bill)
    return table.regret(loss) if math.isfinite(loss) else 1.0


def speedup(runs: dict[str, Runs], way: str) -> float:
    """How much sooner than cold the mean regret gets to where cold ends."""
    final = float(runs["cold"].regret[:, -1].mean())
    return runs["cold"].bill_for(final) / runs[way].bill_for(final)


def summary(found: Sequence[dict[str, Runs]], bills: Sequence[float]) -> dict[str, Any]:
    """Figures over some tasks."""
    ways = [way for way in WAYS if way in found[0]]
    result: dict[str, Any] = {"tasks": [runs["cold"].task for runs in found], "regret": {}}
    for way, bill in product(ways, bills):
        means = np.array([runs[way].at(bill).mean() for runs in found])
        errors = np.array([_error(runs[way].at(bill)) for runs in found])
        cell = {"mean": round(float(means.mean()), 4), "se": round(float(np.hypot.reduce(errors)) / len(errors), 4)}
        result["regret"].setdefault(way, {})[f"{bill:g}R"] = cell
    for way in ways[1:]:
        logs = np.log([max(1e-3, speedup(runs, way)) for runs in found])
        result[f"speedup_{way}"] = round(float(np.exp(logs.mean())), 3)
        result[f"speedup_{way}_se_of_log"] = round(_error(logs), 3)
    if "reversed" in ways:
        result["lost_reversed"] = round(1 / result["speedup_reversed"] - 1, 3)
    return result


def _error(values: Array) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def markdown(figures: dict[str, Any]) -> str:
    """Regret by way and bill."""
    bills = list(next(iter(figures["regret"].values())))
    lines = ["| past | " + " | ".join(bills) + " |", "|---" * (len(bills) + 1) + "|"]
    for way, cells in figures["regret"].items():
        lines.append(f"| {way} | " + " | ".join(f"{c['mean']:.3f} ± {c['se']:.3f}" for c in cells.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, help="folder of curve tables")
    parser.add_argument("--tasks", default="", help="names with commas; default: all that have a family")
    parser.add_argument("--ways", default=",".join(WAYS), help="what to compare; cold is always needed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=200, help="known configurations of each past task, 0: all")
    parser.add_argument("--budget", type=float, default=16.0, help="bill of every search, in full trials")
    parser.add_argument("--bills", default="1,2,4,8,16", help="where regrets are printed")
    options = parser.parse_args()
    tables = load_folder(options.curves)
    wanted = options.tasks.split(",") if options.tasks else [each.name for each in tables if family(each, tables)]
    bills = [float(bill) for bill in options.bills.split(",")]
    found = []
    for table in (each for each in tables if each.name in wanted):
        start = time.perf_counter()
        found.append(compare(table, tables, options))
        ways = {way: f"{speedup(found[-1], way):.2f}" for way in found[-1]}
        print(table.name, ways, f"{time.perf_counter() - start:.0f} s", flush=True)
    result: dict[str, Any] = {"workers": options.workers, "seeds": options.seeds, "rows": options.rows}
    for title, chosen in (("development", True), ("held_apart", False)):
        part = [runs for runs in found if (runs["cold"].task in DEVELOPMENT) is chosen]
        if part:
            result[title] = summary(part, bills)
            print(f"\n{title}: {', '.join(result[title]['tasks'])}\n{markdown(result[title])}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
