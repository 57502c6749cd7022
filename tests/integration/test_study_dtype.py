"""`model.dtype: auto` is resolved once for all trials of a study, by the worker that takes its first slice."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.executors.fake import FakeExecutor
from hpo_service.services.execution.workers import list_workers
from hpo_service.services.studies import best, read
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries.promotions import surroundings
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Attempt, Event, Slice, Study, Worker
from tests.dispatching import ask, events_of, expire_lease, loss_of, make, post_study, state_of, turn_until
from trainer.spec import Dtype, Notice, SliceResult

Sessions = sessionmaker[Session]


def fleet(*dtypes: Dtype) -> FakeExecutor:
    """Workers on which auto is this."""
    executor = FakeExecutor(loss_of, workers=len(dtypes))
    executor.auto_dtypes = {f"fake/{place}": dtype for place, dtype in enumerate(dtypes)}
    return executor


def resolved_of(sessions: Sessions, study_id: int) -> ResolvedStudy:
    with sessions() as session:
        return ResolvedStudy.model_validate(session.scalars(select(Study.resolved).where(Study.id == study_id)).one())


def places_of(sessions: Sessions, study_id: int) -> set[str]:
    query = (
        select(Worker.places)
        .join(Attempt, Attempt.worker_id == Worker.id)
        .join(Slice, Slice.id == Attempt.slice_id)
        .where(Slice.study_id == study_id)
    )
    with sessions() as session:
        return {place for places in session.scalars(query) for place in places}


def test_it_is_pinned_told_and_recorded_in_the_confirmation_too(sessions: Sessions) -> None:
    study_id = post_study(sessions, confirm={"share": 0.6}, budget={"max_trials": 4, "max_examples": 20_000})
    assert resolved_of(sessions, study_id).model.dtype == "auto"
    dispatcher, executor = make(sessions, fleet("bfloat16"))
    turn_until(dispatcher, lambda: len(executor.submitted) == 3)
    dispatcher.context.studies = None
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert {work.trial.model.dtype for work in executor.submitted} == {"bfloat16"}
    assert any(work.trial.training.seed != executor.submitted[0].trial.training.seed for work in executor.submitted)
    resolved = resolved_of(sessions, study_id)
    assert (resolved.model.dtype, resolved.dtype_device) == ("bfloat16", "fake")
    told = [event.payload for event in events_of(sessions, study_id) if event.kind == "study.dtype"]
    assert [(one["dtype"], one["device"]) for one in told] == [("bfloat16", "fake")]
    with sessions() as session:
        assert set(session.scalars(select(Attempt.dtype))) == {"bfloat16"}
        ran = surroundings(session, DEFAULT_PROJECT_ID, study_id, 0)
    assert ran is not None
    assert ran.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("format_name", "line"),
    [
        ("trl", "bf16: true"),
        ("axolotl", "bf16: true"),
        ("llamafactory", "bf16: true"),
        ("hf", '"bf16": true'),
        ("yaml", "dtype: bfloat16"),
    ],
)
def test_an_export_says_what_was_computed(sessions: Sessions, format_name: str, line: str) -> None:
    study_id = post_study(sessions, budget__max_trials=2)
    dispatcher, _ = make(sessions, fleet("bfloat16"))
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    with sessions() as session:
        text = best.export_best(session, DEFAULT_PROJECT_ID, "s", format_name).text
    assert line in text
    assert "dtype: auto" not in text


def test_workers_of_another_class_get_none_of_its_slices(sessions: Sessions) -> None:
    """Nor are slots kept for it there: a study that names its dtype uses them, and both if it is alone."""
    executor = fleet("bfloat16", "float32")
    executor.hold = True
    options: dict[str, Any] = {"search__deterministic": False, "search__strategy": "none", "budget__max_trials": 6}
    study_id = post_study(sessions, **options)
    dispatcher, _ = make(sessions, executor)
    turn_until(dispatcher, lambda: bool(executor.submitted))
    pinned = resolved_of(sessions, study_id).model.dtype
    named = post_study(sessions, metadata={"name": "named"}, model__dtype="float32", **options)
    turn_until(dispatcher, lambda: len(places_of(sessions, named)) == 1)
    executor.hold = False
    turn_until(dispatcher, lambda: {state_of(sessions, one) for one in (study_id, named)} == {"completed"})
    own = next(place for place, dtype in executor.auto_dtypes.items() if dtype == pinned)
    assert places_of(sessions, study_id) == {own}
    assert places_of(sessions, named) - {own}
    assert resolved_of(sessions, named).dtype_device == ""
    alone = post_study(sessions, metadata={"name": "alone"}, model__dtype="bfloat16", **options)
    turn_until(dispatcher, lambda: state_of(sessions, alone) == "completed")
    assert places_of(sessions, alone) == set(executor.auto_dtypes)


def test_without_such_a_worker_it_waits_and_says_so(sessions: Sessions) -> None:
    study_id = post_study(sessions, budget__max_trials=4)
    first, executor = make(sessions, fleet("bfloat16"))
    turn_until(first, lambda: len(executor.submitted) == 2)
    expire_lease(sessions)
    other = post_study(sessions, metadata={"name": "other"}, budget__max_trials=2)
    second, elsewhere = make(sessions, fleet("float32"))
    turn_until(second, lambda: state_of(sessions, other) == "completed")
    assert {work.trial.model.dtype for work in elsewhere.submitted} == {"float32"}
    assert places_of(sessions, study_id) == {"fake/0"}
    with sessions() as session:
        message = session.scalars(select(Study.message).where(Study.id == study_id)).one()
    assert message.startswith(
        "waits for devices: its trials are computed in bfloat16, as auto is on fake where it began"
    )
    assert "clone it with model.dtype bfloat16" in message
    expire_lease(sessions)
    third, _ = make(sessions, fleet("float32", "bfloat16"))
    turn_until(third, lambda: state_of(sessions, study_id) == "completed")
    assert places_of(sessions, study_id) == {"fake/0", "fake/1"}


def test_what_a_study_of_before_was_computed_in_stays(sessions: Sessions) -> None:
    """Its resolved spec names it, and knows of no device that said so."""
    study_id = post_study(sessions, budget__max_trials=2, model__dtype="float32")
    with sessions.begin() as session:
        study = session.scalars(select(Study).where(Study.id == study_id)).one()
        study.resolved = {name: part for name, part in study.resolved.items() if name != "dtype_device"}
    dispatcher, executor = make(sessions, fleet("bfloat16"))
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert {work.trial.model.dtype for work in executor.submitted} == {"float32"}


def test_an_extension_from_before_the_first_slice_does_not_undo_it(sessions: Sessions) -> None:
    study_id = post_study(sessions, budget__max_trials=3)
    asked = resolved_of(sessions, study_id).extend({}, {"max_trials": 5})
    with sessions() as session:
        tag = read.etag(session.scalars(select(Study).where(Study.id == study_id)).one(), [])
    dispatcher, executor = make(sessions, fleet("bfloat16"))
    turn_until(dispatcher, lambda: len(executor.submitted) == 2)
    with sessions() as session:
        assert read.etag(session.scalars(select(Study).where(Study.id == study_id)).one(), []) == tag
    ask(sessions, study_id, IntentKind.EXTEND, resolved=asked.model_dump(mode="json"))
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert {work.trial.model.dtype for work in executor.submitted} == {"bfloat16"}
    resolved = resolved_of(sessions, study_id)
    assert (resolved.model.dtype, resolved.budget.max_trials) == ("bfloat16", 5)


class Repeating(FakeExecutor):
    """Its first slice says whether a step could be repeated."""

    verdicts: list[bool]

    def _result(self, work: Any) -> SliceResult:
        result = super()._result(work)
        if not self.verdicts:
            return result
        verdict = self.verdicts.pop(0)
        notices = () if verdict else (Notice(kind="not_repeatable", message="other bits on fake"),)
        return result.model_copy(update={"repeatable": verdict, "notices": notices})


@pytest.mark.parametrize(("verdicts", "kept"), [([True], True), ([False], False), ([False, True], False), ([], None)])
def test_whether_steps_repeat_is_in_the_workers_record(
    sessions: Sessions, verdicts: list[bool], kept: bool | None
) -> None:
    executor = Repeating(loss_of)
    executor.verdicts = list(verdicts)
    study_id = post_study(sessions, budget__max_trials=2)
    dispatcher, _ = make(sessions, executor)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    with sessions() as session:
        workers = list_workers(session, DEFAULT_PROJECT_ID, page_size=10, page_token=None, gone=True).items
        kinds = session.execute(select(Event.kind, Event.payload).where(Event.study_id.is_(None))).all()
        ran = surroundings(session, DEFAULT_PROJECT_ID, study_id, 0)
    assert [(worker.auto_dtype, worker.repeatable) for worker in workers] == [("float32", kept)]
    told = [payload for kind, payload in kinds if kind == "worker.not_repeatable"]
    assert told == ([{"worker": "fake-0", "message": "other bits on fake"}] if False in verdicts else [])
    notices = [event.payload["kind"] for event in events_of(sessions, study_id) if event.kind == "trial.notice"]
    assert notices == ["not_repeatable"] * verdicts.count(False)
    assert ran is not None
    assert ran.repeatable is kept
