"""Our strategies and their peers on real learning curves in simulated time.

    python -m benchmarks.search --curves FOLDER [--tasks a,b] [--workers 4,16] [--seeds 20] [--strategies a,b]

Every (strategy, task, workers, seed, code) is computed once. Peers' rows are committed in `benchmarks/search/results`,
ours lie in the folder `rows` of `--out` and with `--commit-ours` beside the peers'. A peer whose rows are missing needs
its library: `make peers`. Slow peers have fewer seeds (`peers/catalogue.py`), the tables say how many.

Writes `table.md`, `summary.json` and, with the peers' environment, `curves.svg` and `curves.png` to `--out`. Prints the
tables and as its last line one JSON object, whose first figures are of the tasks on which nothing was tuned:

- `speedup_vs_article`: by number of workers, the article's whole bill by the bill at which the mean regret of
  `--subject` reaches the article's final mean regret (not reached: the budget), geometric mean over tasks; `_within`
  gives one standard error; `speedup_vs_best_peer`: the same against the peer (`best_peer`) where it is lowest;
- `hit_rate_at_32R`: share of runs with a regret of at most 0.1 for a bill of 32 R;
- `per_task`, `strategies`: the figures behind these; `dev_tasks`, `held_apart_tasks`: for each group of tasks.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.search.cells import Cell, Row, Shelf
from benchmarks.search.farm import ROOT, compute
from benchmarks.search.ours_side import FREEZE_THAW, OURS
from benchmarks.search.peers.catalogue import ARTICLE, PEERS
from benchmarks.search.report import Comparison, curves, document, markdown
from benchmarks.search.summary import Runs
from benchmarks.search.tables import load_folder

COMMITTED = Path(__file__).resolve().parent / "results"
OUT = ROOT / "benchmarks" / "out" / "search"
PEERS_PYTHON = ROOT / ".peers" / "bin" / "python"


def wanted(strategy: str, tasks: Sequence[str], options: argparse.Namespace) -> list[Cell]:
    """The cells of a strategy, seed by seed, so that what is done first covers all tasks."""
    entry = OURS.get(strategy) or PEERS[strategy]
    digests = {task: entry.digest(options.curves / f"{task}.npz") for task in tasks}
    seeds = min(options.seeds, PEERS[strategy].most_seeds) if strategy in PEERS else options.seeds
    return [
        Cell(strategy=strategy, task=task, workers=workers, seed=seed, budget=options.budget, digest=digests[task])
        for seed in range(seeds)
        for workers in options.workers
        for task in tasks
    ]


def rows_of(strategy: str, cells: Sequence[Cell], options: argparse.Namespace) -> list[Row]:
    """From the shelves, else computed and shelved."""
    committed = Shelf(COMMITTED, strategy)
    shelf = committed if strategy in PEERS else Shelf(options.out / "rows", strategy)
    found = {cell.key: shelf.find(cell) or committed.find(cell) for cell in cells}
    missing = [cell for cell in cells if found[cell.key] is None]
    if missing:
        print(f"{strategy}: {len(missing)} of {len(cells)} runs to compute", file=sys.stderr, flush=True)
        for row in compute(missing, command(strategy, options.curves), options.jobs):
            shelf.add(row)
            found[row.key] = row
        shelf.tidy()
    rows = [row for row in found.values() if row is not None]
    if options.commit_ours and strategy in OURS:
        committed.extend(rows)
        committed.tidy()
    return rows


def command(strategy: str, folder: Path) -> list[str]:
    """The process that computes cells of a strategy."""
    if strategy in OURS:
        return [sys.executable, "-m", "benchmarks.search.ours_side", str(folder)]
    if not PEERS_PYTHON.exists():
        raise SystemExit(f"rows of {strategy} are missing and its library is not installed: run `make peers` first")
    return [str(PEERS_PYTHON), "-m", "benchmarks.search.peers", str(folder)]


def compare(options: argparse.Namespace) -> Comparison:
    """Look up or compute all that is asked for."""
    tables = {table.name: table for table in load_folder(options.curves, options.tasks)}
    names = list(dict.fromkeys([options.subject, ARTICLE, *options.strategies]))
    runs: dict[str, dict[int, dict[str, Runs]]] = {}
    for name in names:
        rows = rows_of(name, wanted(name, list(tables), options), options)
        runs[name] = {
            workers: {
                task: Runs(table, [row for row in rows if row.task == task and row.workers == workers], options.budget)
                for task, table in tables.items()
            }
            for workers in options.workers
        }
    return Comparison(
        labels={name: (OURS.get(name) or PEERS[name]).label for name in names},
        subject=options.subject,
        article=ARTICLE,
        peers=[name for name in names if name in PEERS],
        workers=options.workers,
        tasks=list(tables),
        runs=runs,
        budget=options.budget,
    )


def draw(compared: Comparison, options: argparse.Namespace) -> None:
    """The curves, if there is an environment that can."""
    if not PEERS_PYTHON.exists():
        print("no curves are drawn: matplotlib comes with `make peers`", file=sys.stderr)
        return
    subprocess.run(
        [str(PEERS_PYTHON), "-m", "benchmarks.search.pictures", str(options.out)],
        cwd=ROOT,
        input=json.dumps(curves(compared)),
        text=True,
        check=True,
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*OURS, *PEERS]
    parser.add_argument("--curves", type=lambda text: Path(text).resolve(), required=True, help="folder of tables")
    parser.add_argument("--tasks", type=lambda text: text.split(","), help="names of tables; default: all")
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[4, 16])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--strategies", type=lambda text: text.split(","), default=every, help=f"of {', '.join(every)}; default: all"
    )
    parser.add_argument("--subject", default=FREEZE_THAW, choices=list(OURS), help="whose speed-ups are reported")
    parser.add_argument("--budget", type=float, default=50.0, help="bill of every run, in full trials")
    parser.add_argument("--jobs", type=int, default=2, help="processes that compute missing rows")
    parser.add_argument("--commit-ours", action="store_true", help="keep our rows beside the peers'")
    parser.add_argument("--out", type=lambda text: Path(text).resolve(), default=OUT, help="folder of what is written")
    options = parser.parse_args()
    if unknown := [name for name in options.strategies if name not in every]:
        parser.error(f"no strategy is called {', '.join(unknown)}; there are {', '.join(every)}")
    return options


def main() -> None:
    """Compare, write, print."""
    options = parsed()
    compared = compare(options)
    options.out.mkdir(parents=True, exist_ok=True)
    table, summary = markdown(compared), json.dumps(document(compared))
    (options.out / "table.md").write_text(table)
    (options.out / "summary.json").write_text(summary + "\n")
    draw(compared, options)
    print(table)
    print(summary)


if __name__ == "__main__":
    main()
