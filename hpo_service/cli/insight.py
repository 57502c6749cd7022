"""`hpo study explain`, …: why the search did what it did, and what mattered."""

from typing import Annotated, Any

import typer

from hpo_service.cli.connection import connect
from hpo_service.cli.output import Format, OutputOption, say, show_json, show_table
from hpo_service.cli.views import edge_warnings, searched_names
from hpo_service.client.http import study_path

Json = dict[str, Any]
Name = Annotated[str, typer.Argument(help="Name of the study.", metavar="NAME")]

DECISION_COLUMNS = (
    "decision", "trial", "to", "rule", "improves by", "predicted", "cost", "runner-up", "loss", "reason",
)  # fmt: skip


def explain(name: Name, output: OutputOption = Format.TABLE) -> None:
    """Every decision of the search in order, with its numbers and what came of it.

    `improves by` is the expected improvement of the best loss, `predicted` the final loss that the model expects with
    its standard deviation, `cost` is in full trials, `loss` is what the slice brought.
    """
    with connect() as client:
        decisions = list(client.pages(f"{study_path(name)}/decisions"))
    if output is Format.JSON:
        show_json(decisions)
    else:
        show_table(DECISION_COLUMNS, [decision_row(decision) for decision in decisions])


def importances(name: Name, output: OutputOption = Format.TABLE) -> None:
    """Which parameters mattered, over trials at all rungs, paused and pruned ones too."""
    with connect() as client:
        found = client.get(f"{study_path(name)}/importances")
    if output is Format.JSON:
        show_json(found)
        return
    if not found["importances"]:
        say(f"Too little is known: {found['trials']} trials have a loss, {found['needed']} are needed.")
    rows = [
        (row["parameter"], f"{row['share']:.0%}", "yes" if row["beyond_chance"] else "not shown", row["best"])
        for row in found["importances"]
    ]
    if rows:
        say(f"From the last losses of {found['trials']} trials: complete, pruned and paused ones.")
    show_table(("parameter", "importance", "beyond chance", "best trial has"), rows)
    if rows and found["unexplored"]:
        say(f"Not explored, because all trials had the same value: {', '.join(found['unexplored'])}.")
    for warning in edge_warnings(found["edges"]):
        say(warning)


def pareto(name: Name, output: OutputOption = Format.TABLE) -> None:
    """Trials that no other one beats in all objectives of the study, the lowest loss first."""
    with connect() as client:
        front = client.get(f"{study_path(name)}/pareto")
    if output is Format.JSON:
        show_json(front)
        return
    names = [objective["name"] for objective in front["objectives"]]
    points = front["items"]
    searched = searched_names(points)
    columns = ("trial", *(f"{one['name']} ({one['goal']})" for one in front["objectives"]), "standing", *searched)
    show_table(columns, [pareto_row(point, names, searched) for point in points])
    say(f"{len(points)} of {front['trials']} trials with a loss are on the front.")


def pareto_row(point: Json, names: list[str], searched: list[str]) -> list[object]:
    """A trial on the front: its objectives, how far it is, the searched parameters."""
    standing = (
        f"provisional, at {point['examples']} of {point['total_examples']}" if point["provisional"] else "complete"
    )
    values = [point["values"][name] for name in names]
    return [point["trial_number"], *values, standing, *(point["parameters"].get(name) for name in searched)]


def decision_row(decision: Json) -> list[object]:
    """A decision as a row of DECISION_COLUMNS."""
    numbers = decision["numbers"]
    return [
        decision["number"],
        f"{decision['trial_number']}{'' if decision['from_examples'] else ' (new)'}",
        decision["until_examples"],
        decision["rule"],
        numbers.get("expected_improvement"),
        _with_spread(numbers.get("predicted_loss"), numbers.get("predicted_sd")),
        numbers.get("cost_in_full_trials"),
        _runner_up(numbers),
        decision["loss"] if decision["outcome"] == "done" else decision["outcome"],
        decision["reason"],
    ]


def _runner_up(numbers: Json) -> str | None:
    name = numbers.get("runner_up")
    if name is None:
        return None
    figures = {
        "+": numbers.get("runner_up_expected_improvement"),
        "for": numbers.get("runner_up_cost_in_full_trials"),
    }
    return " ".join([str(name), *(f"{sign} {value:.3g}" for sign, value in figures.items() if value is not None)])


def _with_spread(loss: float | None, deviation: float | None) -> str | None:
    if loss is None or deviation is None:
        return None
    return f"{loss:.4f} ± {deviation:.2g}"
