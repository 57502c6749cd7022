"""Anytime regret curves, drawn by the peers' environment, which has matplotlib.

python -m benchmarks.search.pictures FOLDER < panels.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot

STYLES: dict[str, dict[str, Any]] = {
    "subject": {"linewidth": 2.6, "zorder": 3},
    "article": {"linewidth": 2.2, "zorder": 2},
    "ours": {"linewidth": 1.4, "linestyle": "--"},
    "peer": {"linewidth": 1.2},
}


def draw(panels: list[dict[str, Any]], folder: Path) -> None:
    """`curves.svg` and `curves.png`: a panel a group of tasks and number of workers."""
    matplotlib.rcParams["svg.hashsalt"] = "search"
    colours = _colours(panels)
    rows = max(1, len(panels) // 2)
    figure, axes = pyplot.subplots(rows, -(-len(panels) // rows), figsize=(12, 4.6 * rows), squeeze=False, sharey=True)
    for axis, panel in zip(axes.flat, panels, strict=True):
        for line in panel["lines"]:
            mean, error = line["mean"], line["error"]
            colour = colours[line["label"]]
            axis.plot(panel["bills"], mean, label=line["label"], color=colour, **STYLES[line["role"]])
            if line["role"] == "subject":
                low, high = zip(*((m - e, m + e) for m, e in zip(mean, error, strict=True)), strict=True)
                axis.fill_between(panel["bills"], low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set(xscale="log", yscale="log", title=panel["title"], xlabel="bill in full trials (workers x clock)")
        ticks = [1, 2, 4, 8, 16, 32]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.grid(alpha=0.3, which="both")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean normalized regret")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    lines = -(-len(labels) // 4)
    figure.tight_layout(rect=(0, 0.025 + 0.025 * lines * 2 / rows, 1, 1))
    figure.savefig(folder / "curves.svg", metadata={"Date": None})
    figure.savefig(folder / "curves.png", dpi=110)


def _colours(panels: list[dict[str, Any]]) -> dict[str, Any]:
    lines = panels[0]["lines"]
    palette = [colour for index, colour in enumerate(pyplot.get_cmap("tab20").colors) if index != 6]
    others, fixed = iter(palette * len(lines)), {"subject": "tab:red", "article": "black"}
    return {line["label"]: fixed.get(line["role"]) or next(others) for line in lines}


if __name__ == "__main__":
    draw(json.load(sys.stdin), Path(sys.argv[1]))
