"""Data checks as jobs of the dispatcher, on a real PostgreSQL with the fake executor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.core.pricing import Prices
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.base import JobEnded
from hpo_service.executors.fake import FakeExecutor
from hpo_service.executors.fake import passed as passing
from hpo_service.services.studies import read as reading
from hpo_service.services.trials import read as trials
from hpo_service.storage.tables import Intent, Job, Slice
from tests.dispatching import (
    ask,
    ended,
    events_of,
    expire_lease,
    loss_of,
    make,
    optuna_trials,
    post_study,
    state_of,
    study_row,
    turn_until,
)
from trainer.spec import Job as Work
from trainer.spec import JobResult, Notice, Outcome, SliceResult, Usage
from trainer.spec.quality import Finding, QualityReport, Threshold, Verdict

Sessions = sessionmaker[Session]


def finding(check: str, verdict: Verdict) -> Finding:
    return Finding(check=check, verdict=verdict, measure=0.3, threshold=Threshold(fail=0.2), rows=3, message="3 rows")


def reports(*verdicts: tuple[str, Verdict]) -> Callable[[Work], JobResult]:
    """A check with these findings."""
    worst: Verdict = max((verdict for _, verdict in verdicts), key=("pass", "warn", "fail").index)
    report = QualityReport(
        verdict=worst,
        findings=tuple(finding(check, verdict) for check, verdict in verdicts),
        train_rows=1,
        eval_rows=1,
        train_sha256="0" * 64,
    )
    return lambda job: passing(job).model_copy(update={"report": report.model_dump(mode="json")})


def fails_with(outcome: Outcome) -> Callable[[Work], JobResult]:
    return lambda job: JobResult(job_id=job.job_id, attempt=job.attempt, outcome=outcome, message="it is broken")


def job(sessions: Sessions) -> Job:
    with sessions() as session:
        return session.scalars(select(Job)).one()


def kinds(sessions: Sessions, study_id: int) -> list[str]:
    return [event.kind for event in events_of(sessions, study_id)]


def facts_of(trial: FrozenTrial) -> tuple[Any, ...]:
    return (trial.number, trial.state, trial.params, trial.intermediate_values)


def test_the_first_slice_waits_for_the_check(sessions: Sessions) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: bool(fake.jobs))
    for _ in range(8):
        dispatcher.turn()
    assert (state_of(sessions, study_id), fake.submitted) == ("queued", [])
    fake.hold_jobs = False
    turn_until(dispatcher, ended(sessions, study_id))
    row = job(sessions)
    assert (row.state, row.outcome, row.attempt, row.seconds) == ("done", "done", 1, 0.5)
    assert row.report is not None
    assert (row.report["verdict"], row.study_id) == ("pass", study_id)
    assert state_of(sessions, study_id) == "completed"
    with sessions() as session:
        assert row.id not in session.scalars(select(Slice.id)).all()
        assert session.scalars(select(func.max(Slice.id))).one() > row.id


def test_a_check_changes_nothing_that_is_decided(sessions: Sessions, database_url: str) -> None:
    without, checked = post_study(sessions), post_study(sessions, fingerprint="f", metadata__name="t")
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, ended(sessions, without))
    turn_until(dispatcher, ended(sessions, checked))
    facts = [[facts_of(trial) for trial in optuna_trials(database_url, name)] for name in ("s", "t")]
    assert facts[0] == facts[1]
    assert study_row(sessions, without).decision_number == study_row(sessions, checked).decision_number


def test_a_second_study_on_the_same_data_starts_at_once(sessions: Sessions) -> None:
    first = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, ended(sessions, first))
    second = post_study(sessions, fingerprint="f", metadata__name="t")
    fake.hold_jobs = True
    turn_until(dispatcher, ended(sessions, second))
    assert len(fake.jobs) == 1
    assert "data.checked" in kinds(sessions, second)


def test_two_studies_wait_for_one_check(sessions: Sessions) -> None:
    studies = [post_study(sessions, fingerprint="f"), post_study(sessions, fingerprint="f", metadata__name="t")]
    dispatcher, fake = make(sessions)
    fake.answer = reports(("leakage_exact", "fail"))
    turn_until(dispatcher, lambda: all(state_of(sessions, study) == "failed" for study in studies))
    assert len(fake.jobs) == 1


def test_a_warning_is_an_event_and_the_study_goes_on(sessions: Sessions) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.answer = reports(("secrets", "pass"), ("near_duplicates", "warn"))
    turn_until(dispatcher, ended(sessions, study_id))
    assert state_of(sessions, study_id) == "completed"
    (event,) = [event for event in events_of(sessions, study_id) if event.kind == "data.checked"]
    assert (event.payload["verdict"], event.payload["job"]) == ("warn", job(sessions).id)
    assert [found["check"] for found in event.payload["findings"]] == ["near_duplicates"]


def test_a_failed_check_fails_the_study_and_names_the_checks(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.answer = reports(("near_duplicates", "warn"), ("leakage_exact", "fail"), ("secrets", "fail"))
    turn_until(dispatcher, ended(sessions, study_id))
    row = study_row(sessions, study_id)
    assert row.state == "failed"
    assert "leakage_exact, secrets." in row.message
    assert "near_duplicates" not in row.message
    assert "hpo study data-check s" in row.message
    assert fake.submitted == []
    assert all(trial.state.is_finished() for trial in optuna_trials(database_url))
    again = post_study(sessions, fingerprint="f", metadata__name="t")
    turn_until(dispatcher, ended(sessions, again))
    assert (state_of(sessions, again), len(fake.jobs)) == ("failed", 1)


def test_data_that_cannot_be_checked_fail_the_study_and_are_checked_again_for_the_next(sessions: Sessions) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.answer = fails_with(Outcome.DATA_ERROR)
    turn_until(dispatcher, ended(sessions, study_id))
    assert (
        "could not be checked: it is broken. With data_checks.enabled: false" in study_row(sessions, study_id).message
    )
    assert (job(sessions).state, job(sessions).attempt) == ("failed", 1)
    fake.answer = passing
    again = post_study(sessions, fingerprint="f", metadata__name="t")
    turn_until(dispatcher, ended(sessions, again))
    assert (state_of(sessions, again), len(fake.jobs)) == ("completed", 2)


@pytest.mark.parametrize("report", [None, {}, {"verdict": "pass"}])
def test_a_report_that_is_no_data_check_is_a_failed_attempt(sessions: Sessions, report: dict[str, Any] | None) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.answer = lambda job: passing(job).model_copy(update={"report": report})
    turn_until(dispatcher, ended(sessions, study_id))
    row = job(sessions)
    assert (row.state, row.attempt, row.report) == ("failed", 3, None)
    assert (row.outcome, row.failures_by_cause) == ("infra_error", {"infra_error": 3})
    assert "its report is not one of check_data: " in study_row(sessions, study_id).message


def test_lost_and_broken_attempts_are_repeated_three_times_at_most(sessions: Sessions) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    fake.kill(fake.workers()[0])
    fake.answer, fake.hold_jobs = fails_with(Outcome.INFRA_ERROR), False
    turn_until(dispatcher, ended(sessions, study_id))
    assert [work.token for work in fake.jobs] == [(job(sessions).id, attempt) for attempt in (1, 2, 3)]
    assert (job(sessions).state, job(sessions).failures, job(sessions).outcome) == ("failed", 3, "infra_error")
    assert state_of(sessions, study_id) == "failed"


def test_a_stale_report_changes_nothing(sessions: Sessions) -> None:
    post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    fake.kill(fake.workers()[0])
    turn_until(dispatcher, lambda: len(fake.jobs) == 2)
    fake._events.append(JobEnded(worker="fake-0", result=reports(("secrets", "fail"))(fake.jobs[0])))
    dispatcher.turn()
    assert (job(sessions).state, job(sessions).attempt, job(sessions).report) == ("running", 2, None)


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
def test_a_restarted_dispatcher_repeats_the_check(sessions: Sessions, turns: int) -> None:
    study_id = post_study(sessions, fingerprint="f")
    for _ in range(2):
        dispatcher, fake = make(sessions)
        fake.hold_jobs = True
        for _ in range(turns):
            dispatcher.turn()
        expire_lease(sessions)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, ended(sessions, study_id))
    assert state_of(sessions, study_id) == "completed"
    assert job(sessions).failures == 0
    assert kinds(sessions, study_id).count("data.checked") == 1


def test_draining_stops_a_job_and_it_waits(sessions: Sessions) -> None:
    post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    dispatcher._drain()
    assert (job(sessions).state, job(sessions).failures, job(sessions).outcome) == ("waiting", 0, "preempted")


def test_a_study_can_be_cancelled_and_deleted_while_it_waits(sessions: Sessions) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    ask(sessions, study_id, IntentKind.CANCEL)
    turn_until(dispatcher, ended(sessions, study_id))
    fake.hold_jobs = False
    turn_until(dispatcher, lambda: job(sessions).state == "done")
    assert state_of(sessions, study_id) == "cancelled"
    assert "data.checked" not in kinds(sessions, study_id)


def test_a_check_that_no_study_asks_for(sessions: Sessions) -> None:
    payload: dict[str, Any] = {
        "job_id": 4711,
        "study_id": None,
        "fingerprint": "f",
        "task": {"kind": "check_data", "model": "/m", "data": {"train": "/d/train.jsonl"}},
    }
    with sessions.begin() as session:
        session.add(Intent(project_id=1, kind="check_data", payload=payload))
    dispatcher, _ = make(sessions)

    def done() -> bool:
        with sessions() as session:
            return session.scalars(select(Job.state)).one_or_none() == "done"

    turn_until(dispatcher, done)
    assert (job(sessions).id, job(sessions).study_id) == (4711, None)
    with sessions() as session:
        assert session.scalars(select(Intent.done_at)).one() is not None


class Noticing(FakeExecutor):
    """Every slice uses two devices and has something to say."""

    def _result(self, work: Any) -> SliceResult:
        usage = Usage(
            examples=10,
            steps=2,
            tokens=100,
            flops=3e9,
            train_flops=2e9,
            train_hardware_flops=4e9,
            data_seconds=1.0,
            train_seconds=3.0,
            energy_joules=5.0,
            devices=2,
            peak_flops_per_second=1e9,
        )
        notice = Notice(kind="loss_spike", step=4, values={"loss": 9.0}, message="the loss jumped to 9")
        facts = {"usage": usage, "notices": (notice,), "device": "gpu", "attention": "sdpa", "micro_batch": 4}
        return super()._result(work).model_copy(update={**facts, "predicted_memory_bytes": 1 << 30})


def test_usage_and_notices_are_kept(sessions: Sessions) -> None:
    study_id = post_study(sessions, budget__max_trials=1, baseline=None)
    fake = Noticing(loss_of)
    dispatcher = Dispatcher(sessions, fake, snapshots=Path("/nonexistent"), prices=Prices(3600.0))
    turn_until(dispatcher, ended(sessions, study_id))
    event = next(event for event in events_of(sessions, study_id) if event.kind == "trial.notice")
    assert event.trial_number == 0
    assert event.payload == {
        "kind": "loss_spike", "step": 4, "values": {"loss": 9.0}, "message": "the loss jumped to 9"
    }  # fmt: skip
    with sessions() as session:
        shown = trials.show_trial(session, 1, "s", 0)
        study = reading.show_study(session, 1, "s")
    attempt = shown.history[0]
    assert (attempt.devices, attempt.device, attempt.attention, attempt.micro_batch) == (2, "gpu", "sdpa", 4)
    assert (attempt.predicted_memory_bytes, attempt.cost_usd, attempt.seconds) == (1 << 30, 8.0, 4.0)
    assert (attempt.usage.tokens_per_second, attempt.usage.mfu, attempt.usage.hfu) == (25.0, 0.25, 0.5)
    assert attempt.usage.busy == 0.75
    rungs = len(shown.history)
    assert (study.spent.seconds, study.spent.usd) == (8.0 * rungs, 8.0 * rungs)
    for usage in (shown.usage, study.usage):
        assert (usage.tokens, usage.mfu, usage.hfu, usage.energy_joules) == (100 * rungs, 0.25, 0.5, 5.0 * rungs)
        assert (usage.data_seconds, usage.train_seconds) == (1.0 * rungs, 3.0 * rungs)


def test_what_one_attempt_does_not_know_the_sum_does_not_know(sessions: Sessions) -> None:
    study_id = post_study(sessions, budget__max_trials=1, baseline=None)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, ended(sessions, study_id))
    with sessions() as session:
        listed = trials.list_trials(session, 1, "s", page_size=10, page_token=None).items[0]
        shown = trials.show_trial(session, 1, "s", 0)
    assert listed.usage == shown.usage
    assert (shown.usage.mfu, shown.usage.hfu, shown.usage.energy_joules) == (None, None, None)


def test_a_model_without_the_target_modules_fails_the_study_in_its_own_words(sessions: Sessions) -> None:
    study_id = post_study(sessions, fingerprint="f")
    dispatcher, fake = make(sessions)
    fake.answer = fails_with(Outcome.USER_ERROR)
    turn_until(dispatcher, ended(sessions, study_id))
    assert study_row(sessions, study_id).message == "it cannot be trained as written: it is broken"
