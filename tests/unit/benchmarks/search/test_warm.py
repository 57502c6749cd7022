"""The benchmark of warm start on tables made up here."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search.cells import Row
from benchmarks.search.summary import Runs
from benchmarks.search.tables import Table
from benchmarks.search.warm import family, lost, main, past_of, speedup_vs_cold


def made_up(name: str, best: float) -> Table:
    """Losses fall towards a bowl around `best`."""
    points = np.random.default_rng(0).random((60, 2))
    distance = ((points - best) ** 2).sum(axis=1)
    falling = np.arange(20, 0, -1) / 20
    return Table(name=name, u=points, loss=0.1 + distance[:, None] + falling[None], seconds=np.ones((60, 20)))


def line() -> Table:
    """A regret is the same number as its loss."""
    return Table(name="a_1", u=np.zeros((3, 1)), loss=np.array([[0.0], [1.0], [2.0]]), seconds=np.ones((3, 1)))


def runs(*losses: float) -> Runs:
    """One run with a loss for the bills 1, 2, ..."""
    row = Row(
        strategy="s",
        task="a_1",
        workers=1,
        seed=0,
        budget=len(losses),
        digest="",
        bill=len(losses),
        trials=1,
        wall_seconds=0.0,
        decision_p95_ms=0.0,
        history=tuple((float(bill), loss) for bill, loss in enumerate(losses, start=1)),
    )
    return Runs(line(), [row], len(losses))


def test_a_family_shares_the_first_part_of_the_name() -> None:
    tables = [made_up(name, 0.5) for name in ("a_1", "a_2", "b_1")]
    assert [table.name for table in family(tables[0], tables)] == ["a_2"]
    assert family(tables[2], tables) == []


def test_a_turned_past_ranks_the_other_way_round() -> None:
    tables = [made_up("a_1", 0.3), made_up("a_2", 0.3)]
    told = [past_of(tables[0], tables, 30, turned=turned) for turned in (False, True)]
    true = np.argsort(tables[0].loss[:, -1])
    straight, turned = (past.ranks(past._cube.features(tables[0].u[true]))[0] for past in told)
    assert straight[:10].mean() < 0.3 < 0.7 < turned[:10].mean()


def test_a_speedup_compares_the_bills_at_which_colds_end_is_reached() -> None:
    cold = runs(0.9, 0.8, 0.6, 0.2)
    assert speedup_vs_cold({"cold": cold, "told": runs(0.5, 0.2, 0.1, 0.1)}) == 2
    assert speedup_vs_cold({"cold": runs(0.9, 0.1, 0.1, 0.1), "told": runs(0.9, 0.9, 0.9, 0.9)}) == 0.5


def test_a_misleading_past_costs_what_cold_would_have_saved() -> None:
    cold = runs(0.9, 0.8, 0.6, 0.2)
    assert lost({"cold": cold, "misled": runs(1, 1, 0.9, 0.6)}) == 1 / 4
    assert lost({"cold": cold, "misled": runs(1, 0.2, 0.2, 0.1)}) == -1 / 2


def test_the_command_prints_json_last_and_computes_every_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, best in (("a_1", 0.3), ("a_2", 0.35)):
        table = made_up(name, best)
        np.savez(tmp_path / f"{name}.npz", u=table.u, loss=table.loss, seconds=table.seconds)
    out = tmp_path / "out"
    asked = ["--curves", str(tmp_path), "--seeds", "1", "--budget", "4", "--bills", "1,4", "--tasks", "a_1"]
    main([*asked, "--out", str(out)])
    said = capsys.readouterr().out
    result = json.loads(said.splitlines()[-1])
    assert result["held_apart"]["tasks"] == ["a_1"]
    assert set(result["held_apart"]["regret"]) == {"cold", "told", "misled"}
    assert result["held_apart"]["regret"]["told"]["4R"]["mean"] <= result["held_apart"]["regret"]["cold"]["1R"]["mean"]
    rows = (out / "rows" / "warm_told.jsonl").read_text()
    main([*asked, "--out", str(out)])
    assert capsys.readouterr().out == said
    assert (out / "rows" / "warm_told.jsonl").read_text() == rows
