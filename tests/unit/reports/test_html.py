"""The page: well-formed, whole in itself, without a chance for names."""

from dataclasses import replace
from typing import Any

import pytest

from hpo_service.reports import render_html
from hpo_service.services.insights.schemas import ImportanceDocument, ImportancesDocument
from hpo_service.services.studies.schemas import EdgeDocument
from hpo_service.storage.queries.reports import TrialPoint
from tests.reported import HOSTILE, POINTS, TRIALS, Page, data_check, pictures, study, study_report, trial

HEADINGS = ["Recommendation", "Baseline and winner", "Best parameters", "Search", "Course and cost", "Data quality",
            "Specification", "Environment"]  # fmt: skip
IMPORTANCES = ImportancesDocument(
    trials=9,
    needed=8,
    importances=[ImportanceDocument(parameter="learning_rate", share=1.0, beyond_chance=True, best=1e-3)],
    unexplored=["lora_r"],
    edges=[],
)


def hostile() -> dict[str, Any]:
    edge = EdgeDocument(parameter=HOSTILE, side="upper", best=1, low=0, high=1, trials=3, message=HOSTILE,
                        command=HOSTILE)  # fmt: skip
    full = study_report()
    named: dict[str, Any] = {
        "message": HOSTILE,
        "labels": {HOSTILE: HOSTILE},
        "edges": [edge],
        "spec": {HOSTILE: HOSTILE},
    }
    return {
        "study": study(**named),
        "verdict": HOSTILE,
        "trials": [trial(number, "complete", 2.0, 1.0, **{HOSTILE: f"{HOSTILE}{number}"}) for number in range(4)],
        "exports": {HOSTILE: replace(full.exports["yaml"], text=HOSTILE, file_name=HOSTILE, dropped=(HOSTILE,))},
        "failed": [replace(full.failed[0], outcome=HOSTILE, message=HOSTILE)],
        "bad_attempts": [replace(full.bad_attempts[0], outcome=HOSTILE, cause=HOSTILE)],
        "timeline": [replace(full.timeline[0], worker=HOSTILE, node=HOSTILE)],
        "surroundings": [replace(full.surroundings[0], device=HOSTILE, software={HOSTILE: HOSTILE})],
        "data_check": data_check(report=None, message=HOSTILE),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"importances": IMPORTANCES},
        {"points": (), "trials": (), "timeline": (), "exports": {}, "comparison": None, "study": study(best=None)},
        {"points": POINTS[:1], "trials": TRIALS[:1]},
        {"trials": [replace(one, losses={}) for one in TRIALS]},
    ],
    ids=["full", "importances", "empty", "one trial", "no losses"],
)
def test_every_page_is_well_formed_and_loads_nothing(changes: dict[str, Any]) -> None:
    html = render_html(study_report(**changes))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "form", "use", "image"} & set(page.elements)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert "url(" not in html
    assert "@import" not in html
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert all(picture.find("{*}title") is not None for picture in pictures(html))


def test_all_sections_and_plots_are_there() -> None:
    html = render_html(study_report(importances=IMPORTANCES))
    page = Page(html)
    assert [heading for heading in HEADINGS if heading not in page.text] == []
    titles = [picture.findtext("{*}title") for picture in pictures(html)]
    assert titles == [
        "Loss by examples seen", "Loss by trial number", "Importances", "Parameters and loss of each trial",
        "Loss by learning_rate", "Loss by lora_r", "What workers ran",
    ]  # fmt: skip
    assert "diverged" in page.text
    assert "worker_died" in page.text
    assert "saved 2 GPU-hours" in page.text
    assert "1 kWh" in page.text
    assert "4.50 USD" in page.text


def test_hostile_names_are_text() -> None:
    html = render_html(study_report(**hostile()))
    page = Page(html)
    assert "script" not in page.elements
    assert "img" not in page.elements
    assert page.text.count(HOSTILE) >= 12
    assert len(pictures(html)) >= 5


def test_a_huge_study_is_sampled_and_says_so() -> None:
    points = [
        TrialPoint(
            number=number, state="COMPLETE" if number % 9 == 0 else "PRUNED", paused=False, examples=200, loss=2.0
        )
        for number in range(10_000)
    ]
    trials = [trial(number, "pruned", 3.0, 2.5, 2.2, 2.1) for number in range(0, 10_000, 67)]
    html = render_html(study_report(points=points, trials=trials, study=study(best=None)))
    assert len(html) < 1_500_000
    assert "150 of 10,000 trials are drawn" in html
    assert "One in 13 of 10,000 trials is drawn" in html
