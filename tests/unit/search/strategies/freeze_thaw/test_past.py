"""What earlier studies say, how far they are trusted, and that without them nothing changes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from hpo_service.search.strategies.base import Advance, Start, Step, StudyView, TrialView
from hpo_service.search.strategies.freeze_thaw import FreezeThaw
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array, Posterior, Sites, fit
from hpo_service.search.strategies.freeze_thaw.knowledge import Knowledge
from hpo_service.search.strategies.freeze_thaw.past import Past, PastTable, trend
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from hpo_service.search.strategies.freeze_thaw.smooth import Smooth
from hpo_service.spec import best_quarter
from hpo_service.spec.space import SearchSpace
from tests.searching import space_of

UNIT = {"low": 0.0, "high": 0.9}
SPACE = space_of(lora_dropout=UNIT, warmup_ratio=UNIT)
CUBE = Cube(SPACE)
LADDER = (10, 30, 100)


def loss(points: Array, best: tuple[float, float] = (0.3, 0.7)) -> Array:
    return np.asarray(1 + ((points - np.array(best)) ** 2).sum(axis=1))


def table(rows: int = 60, *, seed: int = 0, best: tuple[float, float] = (0.3, 0.7), turned: bool = False) -> PastTable:
    points = np.random.default_rng(seed).random((rows, 2))
    losses = loss(points, best) * (-1 if turned else 1)
    good = points[best_quarter(losses.tolist())]
    return PastTable(study=f"past-{seed}", points=points, losses=losses, good=good)


def measured(count: int = 16, *, best: tuple[float, float] = (0.3, 0.7)) -> StudyView:
    """A study whose trials are paused at their first rung."""
    points = np.random.default_rng(9).random((count, 2))
    trials = tuple(
        TrialView(
            number=number,
            standing="paused",
            sampled={name: SPACE.spread(name, share) for name, share in zip(CUBE.names, point.tolist(), strict=True)},
            losses={10: float(value)},
            ladder=LADDER,
            cost_per_example=1.0,
        )
        for number, (point, value) in enumerate(zip(points, loss(points, best), strict=True))
    )
    return StudyView(seed=1, decision_number=count, max_trials=100, trials=trials, ladder=LADDER)


def test_ranks_are_smooth_between_the_rows_of_a_small_table() -> None:
    points = np.random.default_rng(5).random((200, 2))
    ranks = Past(CUBE, [table(40)]).ranks(points)[0]
    assert spearmanr(ranks, loss(points)).statistic > 0.95
    assert ranks.min() >= 0
    assert ranks.max() <= 1


def test_a_study_is_trusted_by_how_well_it_ranks_the_new_results_and_by_its_similarity() -> None:
    points = np.random.default_rng(5).random((12, 2))
    same, half, turned = table(), replace(table(), similarity=0.5), table(turned=True)
    past = Past(CUBE, [same, half, turned])
    weights = past.weights(past.ranks(points), loss(points))
    assert weights[0] > 0.3
    assert weights[1] == pytest.approx(weights[0] / 2)
    assert weights[2] == 0
    assert not past.weights(past.ranks(points[:3]), loss(points[:3])).any()
    mostly_turned = Past(CUBE, [same, turned, turned])
    assert not mostly_turned.weights(mostly_turned.ranks(points), loss(points)).any()


def test_a_portfolio_covers_studies_that_disagree() -> None:
    corners = ((0.1, 0.1), (0.9, 0.9))
    past = Past(CUBE, [table(seed=seed, best=best) for seed, best in enumerate(corners)])
    chosen = past.portfolio(2)
    nearest = [min(float(loss(chosen[[row]], best)[0]) for row in range(2)) for best in corners]
    assert max(nearest) < 1.02
    assert len(past.portfolio(10**6)) <= 120


def test_the_trend_predicts_from_an_agreeing_past_and_a_reversed_one_has_none() -> None:
    features = np.random.default_rng(5).random((20, 2))
    values = (loss(features) - 1.2) * 5
    found = trend(Past(CUBE, [table()]), features, values)
    assert found is not None
    elsewhere = np.random.default_rng(6).random((50, 2))
    assert spearmanr(found.at(elsewhere), loss(elsewhere)).statistic > 0.9
    assert np.abs(found.top(5) - np.array([0.3, 0.7])).max() < 0.25
    assert trend(Past(CUBE, [table(turned=True)]), features, values) is None


def test_the_model_starts_from_the_trend_and_goes_on_as_cold_without_trust() -> None:
    settings, view = FreezeThawSettings(), measured()
    points = np.random.default_rng(5).random((10, 2))
    ends = np.full(10, 100.0)

    def predicted(past: Past | None) -> tuple[Array, Array]:
        return Knowledge(CUBE, view, settings, np.random.default_rng(0), past).final_of_new(points, ends)

    cold, turned, warm = predicted(None), predicted(Past(CUBE, [table(turned=True)])), predicted(Past(CUBE, [table()]))
    for before, after in zip(cold, turned, strict=True):
        np.testing.assert_array_equal(before, after)
    assert not np.array_equal(cold[0], warm[0])
    assert spearmanr(warm[0], loss(points)).statistic > 0.9


def rule_of(step: Step) -> object:
    assert isinstance(step, Start | Advance)
    return step.numbers["rule"]


def decisions(past: Past | None, views: list[StudyView]) -> list[Step]:
    strategy = FreezeThaw(SPACE, lambda _: 100, recall=None if past is None else lambda: past)
    return [strategy.propose(view) for view in views]


def test_without_a_past_every_decision_is_what_it_was() -> None:
    views = [replace(measured(count), decision_number=number) for count in (0, 3, 8, 16) for number in range(6)]
    assert decisions(None, views) == decisions(Past(CUBE, []), views)
    assert decisions(None, views) == decisions(Past(CUBE, [table(3)]), views)


def test_the_design_alternates_the_leader_goes_on_and_what_is_bad_is_given_up() -> None:
    past = Past(CUBE, [table()])
    empty = replace(measured(0), decision_number=0)
    (first,) = decisions(past, [empty])
    assert isinstance(first, Start)
    assert first.assignment is not None
    assert first.numbers["rule"] == "portfolio"
    assert loss(CUBE.locate(first.assignment.sampled)[None])[0] < 1.02
    tried = replace(measured(2).trials[0], sampled=first.assignment.sampled)
    standings = (
        replace(tried, losses={10: 0.5}),
        replace(tried, losses={10: 0.5}, standing="running"),
        replace(tried, losses={10: 9.0}),
    )
    other = measured(2).trials[1]
    steps = decisions(past, [replace(empty, trials=(standing, other)) for standing in standings])
    assert [rule_of(step) for step in steps] == ["leader", "portfolio", "design"]


def test_the_leader_goes_on_although_later_trials_are_better() -> None:
    past, view = Past(CUBE, [table()]), measured(40)
    (first,) = decisions(past, [replace(view, trials=(), decision_number=0)])
    assert isinstance(first, Start)
    assert first.assignment is not None
    leader = replace(view.trials[0], sampled=first.assignment.sampled, losses={10: 1.05})
    later = [replace(trial, losses={10: 0.9 + 0.1 * trial.losses[10]}) for trial in view.trials[16:30]]
    (step,) = decisions(past, [replace(view, trials=(leader, *view.trials[1:16], *later))])
    assert rule_of(step) == "leader"
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (0, 30)


def mixed_space() -> SearchSpace:
    return space_of(
        lr_scheduler={"choices": ["cosine", "constant", "wsd"]},
        decay_ratio={"low": 0.1, "high": 0.4, "when": {"lr_scheduler": ["wsd"]}},
        lora_dropout=UNIT,
    )


def test_the_fast_mean_is_the_gaussian_process_mean() -> None:
    cube, random = Cube(mixed_space()), np.random.default_rng(0)
    points = cube.snap(random.random((40, 3)))
    points[points[:, cube.names.index("lr_scheduler")] < 0.6, cube.names.index("decay_ratio")] = np.nan
    sites = Sites(features=cube.features(points), times=np.zeros(40), trials=np.arange(40))
    values = random.normal(size=40)
    kernel = fit(sites, values, np.zeros(40), cube.groups, None)
    wanted = Sites(features=sites.features[::-1], times=np.zeros(40), trials=np.arange(100, 140))
    expected, _ = Posterior(kernel, sites, values, np.zeros(40)).predict(wanted)
    fast = Smooth(kernel, sites, values, mean=2.0, scale=3.0)
    np.testing.assert_allclose(fast(wanted.features), 2 + 3 * expected, atol=1e-3)
