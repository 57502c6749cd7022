"""The formulas behind the figures."""

import numpy as np
import pytest

from benchmarks.search.cells import Row
from benchmarks.search.report import Comparison, document, markdown
from benchmarks.search.summary import Runs, hit_rate, mean_regrets, overall_speedup, speedup
from benchmarks.search.tables import Table

#: regret is the loss itself: the best loss is 0, the median final loss 1
TABLE = Table("line", np.zeros((3, 1)), np.array([[0.0], [1.0], [2.0]]), np.ones((3, 1)))


def runs(*histories: list[tuple[float, float]], bill: float = 50, budget: float = 50) -> Runs:
    rows = [
        Row(
            strategy="any",
            task="line",
            workers=4,
            seed=seed,
            budget=50,
            digest="abc",
            bill=bill,
            trials=1,
            wall_seconds=0,
            decision_p95_ms=1.5,
            history=tuple(history),
        )
        for seed, history in enumerate(histories)
    ]
    return Runs(TABLE, rows, budget)


PEER = runs([(1, 0.8), (20, 0.4)], [(1, 0.6), (10, 0.2)], bill=24)
OURS = runs([(2, 0.5), (6, 0.1)], [(3, 0.6), (8, 0.3)])


def test_a_run_without_a_result_counts_as_a_middling_configuration() -> None:
    assert OURS.regrets(np.array([1.0, 2.0, 3.0])).tolist() == [[1.0, 0.5, 0.5], [1.0, 1.0, 0.6]]


def test_a_speedup_is_their_whole_bill_by_our_bill_for_their_final_mean() -> None:
    assert PEER.course[:, -1].mean() == pytest.approx(0.3)
    assert OURS.reaches(0.3) == 8, "at 6 the mean is still (0.1 + 0.6) / 2"
    assert speedup(OURS, PEER) == pytest.approx(24 / 8)


def test_a_target_that_is_never_reached_counts_as_the_budget() -> None:
    poor = runs([(2, 0.9)], [(2, 0.9)])
    assert poor.reaches(0.3) is None
    assert speedup(poor, PEER) == pytest.approx(24 / 50)


def test_a_budget_cuts_runs_and_bills() -> None:
    cut = runs([(2, 0.5), (6, 0.1)], [(3, 0.6), (8, 0.3)], budget=7)
    assert cut.reaches(0.3) is None
    assert cut.bills.tolist() == [7, 7]
    assert cut.regrets(np.array([32.0])).tolist() == [[0.1], [0.6]]


def test_speedups_of_tasks_are_averaged_geometrically() -> None:
    poor = runs([(2, 0.9)], [(2, 0.9)])
    found = overall_speedup([OURS, poor], [PEER, PEER])
    assert found.geometric_mean == pytest.approx((3 * 24 / 50) ** 0.5)
    assert found.low < found.geometric_mean < found.high


def test_equal_runs_leave_no_doubt() -> None:
    found = overall_speedup([runs([(2, 0.1)], [(2, 0.1)])], [runs([(9, 0.1)], [(9, 0.1)], bill=20)])
    assert (found.low, found.geometric_mean, found.high) == pytest.approx((10, 10, 10))


def test_means_weigh_tasks_equally() -> None:
    other = runs([(1, 0.2)], [(1, 0.2)])
    means, errors = mean_regrets([OURS, other], np.array([8.0]))
    assert means.tolist() == pytest.approx([(0.2 + 0.2) / 2])
    assert errors.tolist() == pytest.approx([np.std([0.1, 0.3], ddof=1) / 2**0.5 / 2])


def test_one_seed_has_no_standard_error() -> None:
    means, errors = mean_regrets([OURS, runs([(1, 0.2)])], np.array([8.0]))
    assert means.tolist() == pytest.approx([0.2])
    assert np.isnan(errors).all()


def test_hits_are_runs_at_a_tenth_by_32() -> None:
    assert hit_rate([OURS]) == 0.5
    assert hit_rate([runs([(31, 0.1)]), runs([(33, 0.0)])]) == 0.5


def compared() -> Comparison:
    quick, slow = runs([(2, 0.1)], [(2, 0.1)]), runs([(2, 0.9)], [(2, 0.9)])
    found = {
        "mine": {"taskset_03": slow, "held": quick},
        "article": {"taskset_03": PEER, "held": PEER},
        "better": {"taskset_03": PEER, "held": runs([(9, 0.05)], bill=40)},
    }
    return Comparison(
        labels={name: name for name in found},
        subject="mine",
        article="article",
        peers=["article", "better"],
        workers=[4],
        tasks=["taskset_03", "held"],
        runs={name: {4: tasks} for name, tasks in found.items()},
        budget=50,
    )


def test_the_head_figures_are_of_tasks_that_nothing_was_tuned_on() -> None:
    figures = document(compared())
    assert figures["measured_on"] == "held_apart_tasks"
    assert figures["speedup_vs_article"] == {"4": 12.0}
    assert figures["speedup_vs_best_peer"] == {"4": 0.8}, "0.05 is never reached"
    assert figures["held_apart_tasks"]["best_peer"] == {"4": "better"}
    assert figures["dev_tasks"]["speedup_vs_article"] == {"4": 0.48}
    assert figures["per_task"]["4"]["held"]["matched_at"] == 2
    assert figures["strategies"]["article"]["4"]["regret_at"]["8R"] == pytest.approx(0.7)
    assert figures["hit_rate_at_32R"] == {"4": 1.0}
    assert figures["strategies"]["better"]["4"]["standard_error_at"]["8R"] is None, "it has one seed"


def test_tables_begin_with_the_best() -> None:
    lines = markdown(compared()).split("### ")[2].splitlines()
    assert lines[0] == "held apart tasks (1), 4 workers"
    assert [line.split(" | ")[0] for line in lines[4:7]] == ["| better", "| **mine**", "| article"]
