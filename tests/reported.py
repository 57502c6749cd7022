"""A report's facts by hand, and reading what is made of them."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from hpo_service.exporters import Rendered
from hpo_service.services.insights.schemas import ImportancesDocument
from hpo_service.services.promotions.verdict import Comparison
from hpo_service.services.reports.facts import ReportedTrial, StudyReport
from hpo_service.services.studies.schemas import BestDocument, StudyDocument
from hpo_service.services.studies.spec_schemas import DataCheckDocument
from hpo_service.storage.queries.reports import BadAttempts, FailedTrials, Saved, Stretch, Surroundings, TrialPoint

START = datetime(2026, 11, 25, 10, tzinfo=UTC)
RUNGS = (12, 40, 120, 200)
HOSTILE = "</title><script>alert(1)</script> | [x](javascript:alert(2)) `b` <img src=x onerror=y> &lt; ![i](http://e)"
#: elements that are never closed
_VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})


def usage() -> dict[str, Any]:
    return {
        "steps": 100, "tokens": 5000, "tokens_per_second": 50.0, "mfu": None, "hfu": None, "busy": 0.9,
        "energy_joules": 3.6e6, "peak_memory_bytes": 2**30, "load_seconds": 1.0, "data_seconds": 1.0,
        "train_seconds": 90.0, "evaluate_seconds": 7.0, "snapshot_seconds": 1.0, "lost_seconds": 0.0,
    }  # fmt: skip


def spent(**changes: Any) -> dict[str, Any]:
    return {"trials": 4, "examples": 900, "seconds": 7200.0, "lost_seconds": 0.0, "usd": 4.5, "flops": 1e15, **changes}


def study(**changes: Any) -> StudyDocument:
    """A completed study of four trials."""
    document: dict[str, Any] = {
        "name": "first", "state": "completed", "message": "", "pending": [], "labels": {}, "max_trials": 4,
        "trials": {"complete": 2, "pruned": 1, "failed": 1}, "best": best(), "spent": spent(), "usage": usage(),
        "savings": {"examples": 160, "share": 0.2}, "created_at": START, "started_at": START,
        "finished_at": START + timedelta(hours=2), "dashboard": None, "spec": {"metadata": {"name": "first"}},
        "resolved": {
            "model": {"path": "/m"}, "data": {"train": "/d"}, "search": {"strategy": "freeze_thaw", "seed": 3},
            "space": {"parameters": {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}},
        },
        "leader": None, "reserve": None, "past": [], "edges": [], "outlook": None, "confirmation": None, "etag": '"e"',
    }  # fmt: skip
    return StudyDocument.model_validate({**document, **changes})


def best(**changes: Any) -> BestDocument:
    """Trial 1, which beats the baseline."""
    improvement = {"baseline_trial": 0, "examples": 200, "baseline_examples": 200, "baseline_loss": 2.0, "loss": 1.8,
                   "difference": -0.2, "relative": 0.1, "seeds": 0}  # fmt: skip
    document = {
        "trial_number": 1, "loss": 1.8, "examples": 200, "provisional": False,
        "parameters": {"learning_rate": 1e-3, "lora_r": 8}, "improvement": improvement,
    }  # fmt: skip
    return BestDocument.model_validate({**document, **changes})


def trial(number: int, standing: str, *losses: float, **parameters: Any) -> ReportedTrial:
    known: dict[str, Any] = {"learning_rate": 10 ** -(2 + number % 4), "lora_r": 4 * 2 ** (number % 3)}
    return ReportedTrial(
        number=number, standing=standing, baseline=number == 0, parameters={**known, **parameters},
        losses=dict(zip(RUNGS, losses, strict=False)), total_examples=200,
    )  # fmt: skip


COMPARISON = Comparison(
    baseline_trial=0,
    baseline_loss=2.0,
    loss=1.8,
    examples=200,
    baseline_examples=200,
    difference=-0.2,
    half_width=0.05,
    seeds=0,
)
TRIALS = (
    trial(0, "complete", 3.0, 2.5, 2.2, 2.0),
    trial(1, "complete", 2.9, 2.3, 2.0, 1.8),
    trial(2, "pruned", 3.3, 2.9),
    trial(3, "failed", 9.0),
)
POINTS = (
    TrialPoint(number=0, state="COMPLETE", paused=False, examples=200, loss=2.0),
    TrialPoint(number=1, state="COMPLETE", paused=False, examples=200, loss=1.8),
    TrialPoint(number=2, state="PRUNED", paused=False, examples=40, loss=2.9),
    TrialPoint(number=3, state="FAIL", paused=False, examples=12, loss=None),
)


def data_check(**changes: Any) -> DataCheckDocument:
    finding = {"check": "near_duplicates", "verdict": "warn", "measure": 0.03, "rows": 6, "lines": ["train.jsonl:3"],
               "message": "6 rows"}  # fmt: skip
    report = {"verdict": "warn", "findings": [finding], "train_rows": 200, "eval_rows": 60, "train_sha256": "ab" * 32}
    document = {"state": "warned", "job": 1, "message": "", "report": report, "seconds": 1.0}
    return DataCheckDocument.model_validate({**document, **changes})


def study_report(**changes: Any) -> StudyReport:
    """All that a report says; `changes` replace fields."""
    made = StudyReport(
        made_at=START + timedelta(hours=3),
        version="1.2.3",
        study=study(),
        comparison=COMPARISON,
        verdict="Better than the baseline by 0.2000 ± 0.0500 loss with the search's one seed, not confirmed.",
        exports={"yaml": Rendered(text="learning_rate: 0.001\n", media_type="application/yaml", file_name="best.yaml")},
        importances=ImportancesDocument(trials=3, needed=8, importances=[], unexplored=[], edges=[]),
        points=POINTS,
        trials=TRIALS,
        failed=[FailedTrials(outcome="diverged", trials=1, first=3, message="the loss was not finite")],
        bad_attempts=[BadAttempts(outcome="lost", cause="worker_died", attempts=2, seconds=30.0, usd=0.1)],
        saved=Saved(trials=1, examples=160, unmeasured=0, seconds=7200.0),
        timeline=[
            Stretch(worker="w0", node="n0", kind=kind, attempts=2, began=START + timedelta(minutes=10 * place),
                    ended=START + timedelta(minutes=10 * place + 8), seconds=480.0)
            for place, kind in enumerate(("done", "failed", "preempted", "running"))
        ],
        surroundings=[
            Surroundings(device="NVIDIA H100", devices=2, dtype="bfloat16", attention="sdpa", repeatable=True,
                         software={"torch": "2.13.0"}, attempts=9)
        ],
        data_check=data_check(),
    )  # fmt: skip
    return replace(made, **changes)


def pictures(html: str) -> list[ElementTree.Element]:
    """Every SVG of a page, parsed as XML."""
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


class Page(HTMLParser):
    """A page's elements, attributes and text. Raises AssertionError for elements that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
