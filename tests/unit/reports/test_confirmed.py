"""The confirmation in a report."""

from dataclasses import replace

from hpo_service.reports import render_html
from tests.reported import COMPARISON, Page, best, pictures, study, study_report
from tests.unit.reports.sections.test_recommendation import CONFIRMATION, CONFIRMED


def test_candidates_are_listed_and_drawn_with_their_runs() -> None:
    runs = [{"trial_number": 0, "seed": 1, "state": "complete", "loss": 1.79, "test_loss": None},
            {"trial_number": 1, "seed": 2, "state": "complete", "loss": 1.81, "test_loss": None}]  # fmt: skip
    one = {"trial_number": 1, "baseline": False, "searched_loss": 1.8, "searched_examples": 200, "seeds": 2,
           "mean": 1.8, "spread": 0.014, "test_loss": 1.9, "out": None, "runs": runs}  # fmt: skip
    other = {**one, "trial_number": 0, "baseline": True, "mean": 2.0, "out": "behind trial 1"}
    gap = {"trial_number": 1, "other_trial_number": 0, "seeds": 2, "mean": -0.2, "half_width": 0.05, "separated": True}
    shown = {**CONFIRMATION, "candidates": [one, other], "differences": [gap]}
    html = render_html(study_report(study=study(best=best(confirmed=CONFIRMED), confirmation=shown)))
    page = Page(html)
    assert "-0.2000 ± 0.0500 (2 seeds)" in page.text
    for heading in ("standard deviation", "against the baseline, over the seeds of both", "mean test loss"):
        assert heading in page.text
    assert "baseline; behind trial 1" in page.text
    (picture,) = [found for found in pictures(html) if found.findtext("{*}title") == "Confirmed losses"]
    assert len(picture.findall("{*}circle")) == 6


def test_losses_beside_a_difference_say_over_which_seeds_and_after_how_many_examples() -> None:
    found = replace(COMPARISON, examples=320, seeds=1)
    page = Page(render_html(study_report(comparison=found)))
    assert "loss each at its own end: 320 and 200 examples, over the 1 new seed that both have" in page.text
    page = Page(render_html(study_report()))
    assert "loss after 200 examples, with the search's one seed" in page.text
