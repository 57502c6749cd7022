"""The figures of a comparison as one JSON object, as Markdown tables, and as curves to draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from benchmarks.search.summary import HIT_BILL, Runs, Speedup, hit_rate, mean_regrets, overall_speedup, speedup
from benchmarks.search.tables import Array

BILLS = np.array([1.0, 2, 4, 8, 16, 32])
DEVELOPMENT = (
    "lcbench_126025",
    "lcbench_167149",
    "lcbench_189862",
    "taskset_03",
    "taskset_04",
    "taskset_08",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`runs` by strategy, workers and task. `subject` is what is compared with the `article` and the other `peers`."""

    labels: Mapping[str, str]
    subject: str
    article: str
    peers: Sequence[str]
    workers: Sequence[int]
    tasks: Sequence[str]
    runs: Mapping[str, Mapping[int, Mapping[str, Runs]]]
    budget: float

    @property
    def bills(self) -> Array:
        """Where regrets are told."""
        return BILLS[self.budget >= BILLS]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Tasks by whether constants were chosen on them."""
        chosen = {"dev_tasks": [task for task in self.tasks if task in DEVELOPMENT]}
        chosen["held_apart_tasks"] = [task for task in self.tasks if task not in DEVELOPMENT]
        return {name: tasks for name, tasks in chosen.items() if tasks}

    def of(self, strategy: str, workers: int, tasks: Sequence[str]) -> list[Runs]:
        """In the order of the tasks."""
        return [self.runs[strategy][workers][task] for task in tasks]

    def speedup(self, strategy: str, peer: str, workers: int, tasks: Sequence[str]) -> Speedup:
        """Of a strategy over a peer."""
        return overall_speedup(self.of(strategy, workers, tasks), self.of(peer, workers, tasks))


def document(compared: Comparison) -> dict[str, Any]:
    """What the last line holds. The head line's figures are of held-apart tasks, if there are any."""
    groups = {name: _group(compared, tasks) for name, tasks in compared.groups.items()}
    measured_on = "held_apart_tasks" if "held_apart_tasks" in groups else "dev_tasks"
    keys = ("speedup_vs_article", "speedup_vs_best_peer", "hit_rate_at_32R")
    return {
        "subject": compared.subject,
        "measured_on": measured_on,
        **{key: groups[measured_on][key] for key in keys},
        "per_task": {str(workers): _per_task(compared, workers) for workers in compared.workers},
        "strategies": {name: _strategy(compared, name, compared.groups[measured_on]) for name in compared.runs},
        "dev_tasks": groups.get("dev_tasks", {}),
        "held_apart_tasks": groups.get("held_apart_tasks", {}),
    }


def _group(compared: Comparison, tasks: Sequence[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {"tasks": list(tasks)}
    subject = compared.subject
    for workers in compared.workers:
        by_peer = {peer: compared.speedup(subject, peer, workers, tasks) for peer in compared.peers}
        best = min(by_peer, key=lambda peer: by_peer[peer].geometric_mean)
        article = by_peer[compared.article]
        rate = round(hit_rate(compared.of(subject, workers, tasks)), 3)
        for key, value in {
            "speedup_vs_article": round(article.geometric_mean, 2),
            "speedup_vs_article_within": [round(article.low, 2), round(article.high, 2)],
            "speedup_vs_best_peer": round(by_peer[best].geometric_mean, 2),
            "best_peer": best,
            "hit_rate_at_32R": rate,
        }.items():
            figures.setdefault(key, {})[str(workers)] = value
    return figures


def _per_task(compared: Comparison, workers: int) -> dict[str, dict[str, float | None]]:
    found = {}
    for task in compared.tasks:
        ours, article = (compared.runs[name][workers][task] for name in (compared.subject, compared.article))
        target = float(article.course[:, -1].mean())
        matched = ours.reaches(target)
        found[task] = {
            "speedup_vs_article": round(speedup(ours, article), 2),
            "article_bill": round(float(article.bills.mean()), 2),
            "article_regret": round(target, 4),
            "matched_at": None if matched is None else round(matched, 2),
            "regret_at_32R": round(float(ours.regrets(np.array([HIT_BILL])).mean()), 4),
            "hit_rate_at_32R": round(hit_rate([ours]), 3),
        }
    return found


def _strategy(compared: Comparison, name: str, tasks: Sequence[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {"label": compared.labels[name]}
    for workers in compared.workers:
        runs = compared.of(name, workers, tasks)
        bills = compared.bills
        means, errors = mean_regrets(runs, bills)
        figures[str(workers)] = {
            "seeds": min(len(each.rows) for each in runs),
            "regret_at": {f"{bill:g}R": round(float(mean), 4) for bill, mean in zip(bills, means, strict=True)},
            "standard_error_at": {
                f"{bill:g}R": None if isnan(error) else round(float(error), 4)
                for bill, error in zip(bills, errors, strict=True)
            },
            "speedup_vs_article": round(compared.speedup(name, compared.article, workers, tasks).geometric_mean, 2),
            "hit_rate_at_32R": round(hit_rate(runs), 3),
            "decision_p95_ms": round(max(row.decision_p95_ms for each in runs for row in each.rows), 1),
        }
    return figures


def markdown(compared: Comparison) -> str:
    """A table a group of tasks and number of workers, the best strategy first."""
    parts = []
    for group, tasks in compared.groups.items():
        for workers in compared.workers:
            title = f"{group.replace('_', ' ')} ({len(tasks)}), {workers} workers"
            parts.append(f"### {title}\n\n{_table(compared, workers, tasks)}\n")
    return "\n".join(parts)


def _table(compared: Comparison, workers: int, tasks: Sequence[str]) -> str:
    heads = [
        "strategy",
        "seeds",
        *(f"{bill:g} R" for bill in compared.bills),
        "speed-up over the article",
        "≤ 0.1 at 32 R",
    ]
    lines = []
    for name in compared.runs:
        runs = compared.of(name, workers, tasks)
        means, errors = mean_regrets(runs, compared.bills)
        gain = compared.speedup(name, compared.article, workers, tasks)
        label = compared.labels[name]
        cells = [
            f"**{label}**" if name == compared.subject else label,
            str(seeds := min(len(each.rows) for each in runs)),
            *(_with_error(float(mean), float(error)) for mean, error in zip(means, errors, strict=True)),
            f"{gain.geometric_mean:.1f}" + (f" ({gain.low:.1f}–{gain.high:.1f})" if seeds > 1 else ""),
            f"{hit_rate(runs):.0%}",
        ]
        lines.append((float(means[-1]), cells))
    body = [cells for _, cells in sorted(lines, key=lambda line: line[0])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *body])


def curves(compared: Comparison) -> list[dict[str, Any]]:
    """Panels to draw: mean regret of every strategy over the bill."""
    bills = np.geomspace(0.5, compared.budget, 120)
    panels = []
    for group, tasks in compared.groups.items():
        for workers in compared.workers:
            lines = []
            for name in compared.runs:
                mean, error = mean_regrets(compared.of(name, workers, tasks), bills)
                role = _role(compared, name)
                line = {"label": compared.labels[name], "role": role, "mean": mean.tolist(), "error": error.tolist()}
                lines.append(line)
            title = f"{len(tasks)} {group.replace('_', ' ')}, {workers} workers"
            panels.append({"title": title, "bills": bills.tolist(), "lines": lines})
    return panels


def _role(compared: Comparison, name: str) -> str:
    known = {compared.subject: "subject", compared.article: "article"}
    return known.get(name) or ("peer" if name in compared.peers else "ours")


def _with_error(mean: float, error: float) -> str:
    return f"{mean:.3f}" if isnan(error) else f"{mean:.3f} ± {error:.3f}"
