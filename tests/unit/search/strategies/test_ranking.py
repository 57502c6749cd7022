"""What is said of the trials that a study finishes before it ends."""

from hpo_service.search.strategies.base import Advance, StudyView
from hpo_service.search.strategies.ranking import conclude
from hpo_service.search.strategies.trials import Roster, TrialView


def test_a_baseline_at_its_end_does_not_make_nothing_trained_to_the_end() -> None:
    trials = [
        TrialView(number=0, standing="complete", baseline=True, losses={20: 4.0, 40: 3.5}, ladder=(20, 40)),
        TrialView(number=1, standing="paused", losses={20: 3.0}, ladder=(20, 40)),
    ]
    step = conclude(StudyView(seed=0, decision_number=2, max_trials=2, trials=Roster.of(trials), ladder=(20, 40)))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.reason) == (1, "no searched trial is trained to its end yet, and it leads")
