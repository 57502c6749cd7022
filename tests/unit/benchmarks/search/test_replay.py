"""Strategies on a table, in this process and in one of their own."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.search.cells import Cell
from benchmarks.search.farm import compute
from benchmarks.search.ours_side import OURS, make_ours
from benchmarks.search.peers.catalogue import PEERS, make_peer
from benchmarks.search.replay import replay, shortened
from tests.unit.benchmarks.search.curve_tables import bowl, saved

OPTUNA = ["article", "optuna_tpe_halving", "optuna_tpe_hyperband"]


def cell(strategy: str, budget: float = 4, seed: int = 0) -> Cell:
    return Cell(strategy=strategy, task="bowl", workers=4, seed=seed, budget=budget, digest="abc")


@pytest.mark.parametrize("name", [*OURS, *OPTUNA])
def test_a_run_spends_its_budget_and_repeats(name: str, tmp_path: Path) -> None:
    table, make = bowl(tmp_path), make_ours(name) if name in OURS else make_peer(name)
    row, again = (replay(cell(name), table, make) for _ in range(2))
    assert row == replace(again, wall_seconds=row.wall_seconds, decision_p95_ms=row.decision_p95_ms)
    assert row.bill == 4
    losses = [loss for _, loss in row.history]
    assert losses == sorted(losses, reverse=True)
    assert table.regret(losses[-1]) < 1


def test_the_article_ends_after_fifty_trials(tmp_path: Path) -> None:
    row = replay(cell("article", budget=60), bowl(tmp_path), make_peer("article"))
    assert row.trials == 50
    assert 10 < row.bill < 52


def test_a_process_computes_what_this_one_does_and_its_death_is_told(tmp_path: Path) -> None:
    path, wanted = saved(tmp_path), cell("article")
    rows = compute(
        [wanted, replace(wanted, task="no_such_task")],
        [sys.executable, "-m", "benchmarks.search.peers", str(path.parent)],
        jobs=1,
    )
    assert next(rows).history == replay(wanted, bowl(tmp_path), make_peer("article")).history
    with pytest.raises(RuntimeError, match="no_such_task"):
        next(rows)


def test_a_shortened_history_keeps_what_counts() -> None:
    history = [(0.123456, 2.0), (0.5, 1.999), (1.0, 1.5), (1.001, 1.4), (2.0, 1.399)]
    assert shortened(history, lowest=1.0) == ((0.124, 2.0), (1.0, 1.5), (1.01, 1.4), (2.0, 1.399))


def test_every_peer_is_pinned_and_driven() -> None:
    package = Path(sys.modules["benchmarks.search.peers.catalogue"].__file__ or "").parent
    pins = (package.parent / "peers-requirements.txt").read_text()
    for peer in PEERS.values():
        assert (package / f"{peer.module}.py").exists()
        assert all(f"\n{name}==" in pins or f"\n{name}[" in pins for name in peer.packages)
