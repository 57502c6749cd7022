"""What a tracker is told of a study's own run: spec, state, figures, best config, report."""

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from hpo_service.core.errors import NotFound
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.integrations.base import Metric, RunState, RunUpdate
from hpo_service.integrations.run_files import Writer, adapter_writer, all_of, text_writer
from hpo_service.integrations.runs import Reading, metrics_of, study_run, text_of, trial_run
from hpo_service.reports import render_html
from hpo_service.search.best import ranking
from hpo_service.services.reports.read import read_report
from hpo_service.services.studies.best import export_best, show_best
from hpo_service.services.trials.optuna_trials import TrialFacts
from hpo_service.storage.queries import attempts, optuna_reads
from hpo_service.storage.queries.outbox import OutboxEvent
from hpo_service.storage.queries.usage import consumed_by_study
from hpo_service.storage.tables import Study
from trainer.spec import SnapshotRef

log = logging.getLogger(__name__)

_STUDY_ENDS = {
    StudyState.COMPLETED: RunState.FINISHED,
    StudyState.FAILED: RunState.FAILED,
    StudyState.CANCELLED: RunState.KILLED,
}


def study_updates(reading: Reading, study: Study, history: Sequence[OutboxEvent]) -> Iterable[RunUpdate]:
    """Of a study's run and, at its end, of the runs of its best trials, which get their adapters."""
    last, run = history[-1], study_run(reading, study)
    state = StudyState(last.payload["state"])
    tags = {"hpo.state": str(state), "hpo.message": str(last.payload.get("message", ""))}
    opened = any(event.payload["state"] == StudyState.QUEUED for event in history)
    spec = json.dumps(study.spec, indent=2, ensure_ascii=False)
    writers = [text_writer("study.json", spec)] if opened else []
    metrics: Sequence[Metric] = ()
    if state in TERMINAL and study.optuna_study_id is not None:
        metrics = _study_metrics(reading, study, last)
        if study.parent_study_id is None:
            yield from _adapters(reading, study, last)
            writers += _results(reading, study)
    yield RunUpdate(
        run=run,
        parameters=_study_parameters(study),
        metrics=metrics,
        tags=tags,
        state=_STUDY_ENDS.get(state, RunState.RUNNING),
        ended_at=last.created_at if state in TERMINAL else None,
        write_files=all_of(writers) if writers else None,
    )


def _adapters(reading: Reading, study: Study, last: OutboxEvent) -> Iterable[RunUpdate]:
    assert study.optuna_study_id is not None
    rows = optuna_reads.read_trials(reading.session.connection(), study.optuna_study_id)
    for best in ranking([TrialFacts(row) for row in rows], reading.keep_best):
        number = best.trial_number
        known = attempts.snapshots_of_trial(reading.session, study.project_id, study.id, number)
        snapshots = [SnapshotRef.model_validate(snapshot) for snapshot in known]
        run = trial_run(reading, study, number, last.created_at)
        yield RunUpdate(run=run, write_files=adapter_writer(reading.store, snapshots, run.key))


def _study_metrics(reading: Reading, study: Study, last: OutboxEvent) -> list[Metric]:
    spent = consumed_by_study(reading.session, study.project_id, [study.id])[study.id].spent
    known: dict[str, Any] = {
        "trials": spent.trials,
        "cost_usd": spent.usd,
        "device_seconds": spent.seconds,
        "examples_trained": spent.examples,
    }
    examples = 0
    try:
        best = show_best(reading.session, study.project_id, study.name)
        known["best_loss"], examples = best.loss, best.examples
    except NotFound:
        log.info("study %s ended before its first rung", study.name, extra={"study_id": study.id})
    return metrics_of(known, examples, last)


def _results(reading: Reading, study: Study) -> Iterable[Writer]:
    """The report, and the best config if a trial has reached a rung; nothing once the study is deleted."""
    try:
        yield text_writer("report.html", render_html(read_report(reading.session, study.project_id, study.name)))
        yield text_writer("best.yaml", export_best(reading.session, study.project_id, study.name, "yaml").text)
    except NotFound as error:
        log.info("study %s has less to keep: %s", study.name, error.detail, extra={"study_id": study.id})


def _study_parameters(study: Study) -> dict[str, str]:
    resolved = study.resolved
    chosen = {
        "model": resolved["model"]["path"],
        "train": resolved["data"]["train"],
        "strategy": resolved["search"]["strategy"],
        "sampler": resolved["search"]["sampler"],
        "seed": resolved["search"]["seed"],
    }
    return {name: text_of(value) for name, value in chosen.items()}
