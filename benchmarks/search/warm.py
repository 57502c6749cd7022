"""Warm start in simulated time: a task is searched with what the other tasks of its family have shown, and without.

    python -m benchmarks.search.warm --curves FOLDER [--tasks a,b] [--seeds 10] [--workers 4] [--rows 200]

The family of `taskset_03` are all other tables whose name begins with `taskset`. Of each, `--rows` configurations drawn
at random and trained to their end are the past (0: all). `cold` has no past, `told` has it, `misled` has it with every
ranking turned round. Every run is computed once and shelved below `--out`. Prints one line a task, a table for
development and for held-apart tasks, and as its last line one JSON object:

- `speedup_vs_cold`: the bill at which cold's mean regret reaches its own final value, by the bill at which told's does
  (not reached: the budget); geometric mean over the tasks, with the standard error of its logarithm;
- `speedup_vs_article`: by way, the article's whole bill by the bill at which the article's final mean regret is
  reached (not reached: the budget), with `_within` one standard error of the seeds;
- `lost_misled`: the share of the whole bill that the reversed past cost: for so much less cold had the regret with
  which misled ends (negative: so much sooner misled had cold's); mean over the tasks, with its standard error;
- `regret`: mean regret and its standard error at every bill of `--bills`.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.cells import Cell, Shelf
from benchmarks.search.digests import digest
from benchmarks.search.ours import Ours, space_of
from benchmarks.search.ours_side import SEARCH, SHARED
from benchmarks.search.replay import replay
from benchmarks.search.summary import Runs, mean_regrets, overall_speedup
from benchmarks.search.tables import Array, Table, load_folder
from hpo_service.search.strategies import FreezeThaw
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.past import Past, PastTable
from hpo_service.spec import best_quarter
from hpo_service.spec.space import SearchSpace

#: what constants of warm start were chosen on; all other tasks are held apart
DEVELOPMENT = ("lcbench_126025", "lcbench_189862", "taskset_03", "taskset_08")
WAYS = ("cold", "told", "misled")
HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "out" / "search"
Task = Mapping[str, Runs]


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
        losses, points = -losses if turned else losses, other.u[chosen]
        good = points[best_quarter(losses.tolist())]
        known.append(PastTable(study=other.name, points=points, losses=losses, good=good))
    return Past(Cube(space_of(table)), known)


def runs_of(way: str, table: Table, tables: Sequence[Table], options: argparse.Namespace) -> Runs:
    """All seeds of one way of searching one task: from the shelf, else computed and shelved."""
    known = [] if way == "cold" else family(table, tables)
    files = [options.curves / f"{each.name}.npz" for each in (table, *known)]
    code = [SEARCH / "strategies" / "freeze_thaw", HERE / "warm.py", *SHARED]
    cells = [
        Cell(
            strategy=f"warm_{way}",
            task=table.name,
            workers=options.workers,
            seed=seed,
            budget=options.budget,
            digest=digest([*code, *files], str(options.rows)),
        )
        for seed in range(options.seeds)
    ]
    shelf = Shelf(options.out / "rows", f"warm_{way}")
    past = (
        Past(Cube(space_of(table)), [])
        if way == "cold"
        else past_of(table, tables, options.rows, turned=way == "misled")
    )

    def make(space: SearchSpace, total: int) -> FreezeThaw:
        return FreezeThaw(space, lambda _: total, recall=lambda: past)

    def search(chosen: Table, workers: int, seed: int) -> Ours:
        return Ours(chosen, make, workers=workers, seed=seed, sampler="random")

    rows = []
    for cell in cells:
        row = shelf.find(cell)
        if row is None:
            row = replay(cell, table, search)
            shelf.add(row)
        rows.append(row)
    return Runs(table, rows, options.budget)


def article_of(table: Table, options: argparse.Namespace) -> Runs:
    """The committed runs of the article's recipe."""
    rows = Shelf(HERE / "results", "article").rows.values()
    return Runs(table, [row for row in rows if row.task == table.name and row.workers == options.workers], math.inf)


def bill_for(runs: Runs, regret: float) -> float:
    """The bill at which the mean regret is as low; the budget if it never is."""
    reached = runs.reaches(regret)
    return runs.budget if reached is None else reached


def final(runs: Runs) -> float:
    """Mean regret at the end."""
    return float(runs.course[:, -1].mean())


def speedup_vs_cold(task: Task) -> float:
    """How much sooner than cold told gets to where cold ends."""
    return bill_for(task["cold"], final(task["cold"])) / bill_for(task["told"], final(task["cold"]))


def lost(task: Task) -> float:
    """The share of its bill that a misleading past costs: cold would have had the same regret for so much less."""
    cold, misled = task["cold"], task["misled"]
    if final(misled) > final(cold):
        return 1 - bill_for(cold, final(misled)) / cold.budget
    return bill_for(misled, final(cold)) / bill_for(cold, final(cold)) - 1


def summary(tasks: Sequence[Task], articles: Sequence[Runs], bills: Array) -> dict[str, Any]:
    """Figures over some tasks."""
    result: dict[str, Any] = {"tasks": [task["cold"].table.name for task in tasks], "regret": {}}
    for way in WAYS:
        means, errors = mean_regrets([task[way] for task in tasks], bills)
        result["regret"][way] = {
            f"{bill:g}R": {"mean": round(float(mean), 4), "se": round(float(error), 4)}
            for bill, mean, error in zip(bills, means, errors, strict=True)
        }
    logs = [math.log(speedup_vs_cold(task)) for task in tasks]
    result |= {"speedup_vs_cold": round(math.exp(np.mean(logs)), 3), "speedup_vs_cold_se_of_log": _error(logs)}
    shares = [lost(task) for task in tasks]
    result |= {"lost_misled": round(float(np.mean(shares)), 3), "lost_misled_se": _error(shares)}
    if all(article.rows for article in articles):
        found = {way: overall_speedup([task[way] for task in tasks], articles) for way in WAYS}
        result["speedup_vs_article"] = {way: round(each.geometric_mean, 2) for way, each in found.items()}
        result["speedup_vs_article_within"] = {way: [round(e.low, 2), round(e.high, 2)] for way, e in found.items()}
    return result


def _error(values: Sequence[float]) -> float:
    return round(float(np.std(values, ddof=1)) / math.sqrt(len(values)), 3) if len(values) > 1 else 0.0


def markdown(figures: dict[str, Any]) -> str:
    """Regret by way and bill."""
    bills = list(figures["regret"]["cold"])
    lines = ["| past | " + " | ".join(bills) + " |", "|---" * (len(bills) + 1) + "|"]
    for way, cells in figures["regret"].items():
        lines.append(f"| {way} | " + " | ".join(f"{c['mean']:.3f} ± {c['se']:.3f}" for c in cells.values()) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, help="folder of curve tables")
    parser.add_argument("--tasks", default="", help="names with commas; default: all that have a family")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=200, help="known configurations of each past task, 0: all")
    parser.add_argument("--budget", type=float, default=16.0, help="bill of every search, in full trials")
    parser.add_argument("--bills", default="1,2,4,8,16", help="where regrets are printed")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of what is computed")
    options = parser.parse_args(arguments)
    tables = load_folder(options.curves)
    wanted = options.tasks.split(",") if options.tasks else [each.name for each in tables if family(each, tables)]
    bills = np.array([float(bill) for bill in options.bills.split(",")])
    found: dict[str, Task] = {}
    for table in (each for each in tables if each.name in wanted):
        task = found[table.name] = {way: runs_of(way, table, tables, options) for way in WAYS}
        print(f"{table.name}: told {speedup_vs_cold(task):.2f} times sooner, misled lost {lost(task):.0%}", flush=True)
    result: dict[str, Any] = {"workers": options.workers, "seeds": options.seeds, "rows": options.rows}
    for title, chosen in (("development", True), ("held_apart", False)):
        part = [task for name, task in found.items() if (name in DEVELOPMENT) is chosen]
        if part:
            result[title] = summary(part, [article_of(task["cold"].table, options) for task in part], bills)
            print(f"\n{title}: {', '.join(result[title]['tasks'])}\n{markdown(result[title])}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
