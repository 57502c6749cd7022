"""Proposals: what was computed before the last news must not put a study to sleep, and nobody holds a slot for ever."""

import time
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import pytest

from hpo_service.dispatcher.scheduling.proposal_pool import Proposals
from hpo_service.dispatcher.scheduling.propose import Proposal
from hpo_service.search.strategies.base import Advance, Judgement, Step, StudyView, Wait
from hpo_service.spec.space import SearchSpace
from tests.searching import resolved, view


@dataclass
class Slow:
    """A strategy that answers once it is let go."""

    answer: Step
    go: Event = field(default_factory=Event)

    def propose(self, view: StudyView) -> Step:
        self.go.wait(10)
        return self.answer

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        raise AssertionError


class Study:
    """What a proposal needs of a study."""

    def __init__(self, strategy: Slow) -> None:
        self.id = 1
        self.strategy = strategy
        self.resolved = resolved()
        self.space: SearchSpace = self.resolved.search_space()

    def view(self, slots: int) -> StudyView:
        return view()


def taken(proposals: Proposals) -> list[Proposal]:
    """The proposals once they are computed."""
    deadline = time.monotonic() + 10
    while not next(iter(proposals._futures.values())).done():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return proposals.take(1)


ADVANCE = Advance(trial_number=0, until_examples=10, reason="next")


@pytest.mark.parametrize(
    ("answer", "news", "kept"), [(Wait(), False, True), (Wait(), True, False), (ADVANCE, True, True)]
)
def test_doing_nothing_is_obeyed_only_by_who_knew_everything(answer: Step, news: bool, kept: bool) -> None:
    proposals, strategy = Proposals(wake=lambda: None), Slow(answer)
    study: Any = Study(strategy)
    proposals.request(study, 1, 1)
    if news:
        proposals.outdate(study.id)
    strategy.go.set()
    assert bool(taken(proposals)) == kept
    proposals.request(study, 1, 1)
    assert len(taken(proposals)) == 1
    proposals.close()


def test_a_study_that_ends_is_forgotten() -> None:
    proposals, strategy = Proposals(wake=lambda: None), Slow(Wait())
    study: Any = Study(strategy)
    proposals.request(study, 1, 1)
    proposals.retain([2])
    strategy.go.set()
    assert proposals.take(study.id) == []
    proposals.close()


def test_a_slow_study_delays_no_other() -> None:
    proposals, slow, quick = Proposals(wake=lambda: None), Slow(Wait()), Slow(ADVANCE)
    first, second = Study(slow), Study(quick)
    second.id = 2
    quick.go.set()
    for study in (first, second):
        asked: Any = study
        proposals.request(asked, 1, 1)
    deadline = time.monotonic() + 10
    while not (found := proposals.take(2)) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert [one.step for one in found] == [ADVANCE]
    assert proposals.take(1) == []
    slow.go.set()
    proposals.close()


def test_a_study_that_was_quick_may_want_more() -> None:
    """What is ready takes its slots and leaves twice as many for the next round: the slots of a study fill up."""
    proposals, strategy = Proposals(wake=lambda: None), Slow(Wait())
    study: Any = Study(strategy)
    assert proposals.expected(study.id) == 2
    strategy.go.set()
    proposals.request(study, 1, 1)
    deadline = time.monotonic() + 10
    while not proposals._futures[study.id].done() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert proposals.expected(study.id) == 1 + 2
    proposals.close()
