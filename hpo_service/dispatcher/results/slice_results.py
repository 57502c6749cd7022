"""What a slice's end means for its trial and its study. Runs inside the dispatcher's transaction."""

import logging
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.core.pricing import Prices
from hpo_service.core.study_rules import COUNTED_CAUSES, Cause, StudyState, cost_usd, nearly_spent
from hpo_service.dispatcher.lifecycle import study_state, trial_notes
from hpo_service.dispatcher.results import lost_usage, oom_retry, poison_slices, same_data
from hpo_service.dispatcher.state.live_studies import PAUSED, LiveSlice, LiveStudy
from hpo_service.dispatcher.telemetry import spans
from hpo_service.storage.queries import attempt_ends, dispatch
from trainer.spec import Outcome, SliceResult, is_device_fault

log = logging.getLogger(__name__)

_ABOUT_THE_STUDY = frozenset({Outcome.DATA_ERROR, Outcome.USER_ERROR})
_RETRIED = frozenset({Outcome.INFRA_ERROR, Outcome.LOST})
#: So many trials failed for reasons of the machinery, and none ever reported a loss: something is wrong for all.
_HOPELESS_TRIALS = 3


def settle(
    session: Session,
    study: LiveStudy,
    result: SliceResult,
    *,
    prices: Prices,
    cause: Cause | None = None,
    alone: bool = False,
    sharing: int = 1,
) -> bool:
    """Apply the end of an attempt. A stale one changes nothing: False.

    `cause` is why it was lost; whether that counts against the slice follows from it. `alone`: no other slice can have
    ended its worker, which so many were `sharing`.
    """
    piece = study.slices.get(result.slice_id)
    if piece is None or piece.attempt != result.attempt or not piece.running:
        log.warning("stale result of slice %d attempt %d is dropped", result.slice_id, result.attempt)
        return False
    result = same_data.checked(study, result)
    cause = cause or _own_cause(result)
    poisonous = poison_slices.is_poison(piece.kills, cause, alone=alone)
    smaller = oom_retry.half(study, piece, result)
    next_state = _next_state(study, piece, result, cause, poisonous=poisonous, again=smaller is not None)
    result = lost_usage.estimated(session, study, piece, result, cause=cause, sharing=sharing)
    price = prices.usd_per_device_hour(result.device)
    cost = cost_usd(result.usage.total_seconds(), result.usage.devices, price)
    if not dispatch.end_attempt(session, result, cost, state=next_state, cause=cause):
        log.warning("stale result of slice %d attempt %d is dropped", result.slice_id, result.attempt)
        return False
    study.news()
    spans.note(session, study, piece, result, cause)
    same_data.keep(session, study, result)
    piece.running, piece.stop_sent = False, False
    piece.failures += int(cause in COUNTED_CAUSES)
    piece.kills += int(cause in poison_slices.KILLING_CAUSES)
    if next_state != "waiting":
        del study.slices[piece.id]
    before = study.spent
    _account(study, piece, result, cost)
    near = nearly_spent(study.resolved.limits(), before, study.spent)
    if near is not None:
        _event(session, study, EventKind.BUDGET_NEARLY_SPENT, {"message": near}, piece.trial_number)
    if poisonous and next_state == "failed":
        result = result.model_copy(update={"message": poison_slices.evidence(session, piece.id)})
    if smaller is not None and next_state == "waiting":
        oom_retry.keep(session, study, piece, result, smaller)
    elif next_state == "failed":
        result = oom_retry.with_evidence(session, study, piece, result)
    _apply(session, study, piece, result, next_state, cause)
    study_state.conclude(session, study)
    return True


def _own_cause(result: SliceResult) -> Cause | None:
    """Why the worker says that the attempt failed through no fault of its trial."""
    if result.outcome is not Outcome.INFRA_ERROR:
        return None
    return Cause.GPU_FAULT if any(map(is_device_fault, result.notices)) else Cause.INFRA_ERROR


def _next_state(
    study: LiveStudy, piece: LiveSlice, result: SliceResult, cause: Cause | None, *, poisonous: bool, again: bool
) -> str:
    if result.outcome is Outcome.DONE:
        return "done"
    if not again and (result.outcome.about_the_trial or result.outcome in _ABOUT_THE_STUDY):
        return "failed"
    if study.state in (StudyState.STOPPING, StudyState.CANCELLING):
        return "dropped"
    if poisonous or (cause in COUNTED_CAUSES and piece.failures + 1 >= study.resolved.resources.max_attempts):
        return "failed"
    return "waiting"


def _account(study: LiveStudy, piece: LiveSlice, result: SliceResult, cost: float) -> None:
    usage = result.usage
    spent = study.spent
    study.spent = replace(
        spent,
        examples=spent.examples + usage.examples,
        seconds=spent.seconds + usage.total_seconds() * usage.devices,
        usd=spent.usd + cost,
        flops=spent.flops + usage.flops,
    )
    attrs = study.trial(piece.trial_number).user_attrs
    # What was lost with a worker is the study's bill, and says nothing about the trial's pace.
    own_usd = 0.0 if usage.lost_seconds else cost
    amounts = {"seconds": usage.told_seconds(), "examples": usage.examples, "cost_usd": own_usd}
    if any(objective.name == "train_tokens_per_second" for objective in study.resolved.search.objectives):
        amounts |= {"tokens": usage.tokens, "train_seconds": usage.train_seconds + usage.data_seconds}
    for name, amount in amounts.items():
        study.storage.set_trial_user_attr(piece.optuna_trial_id, name, attrs.get(name, 0) + amount)


def _apply(
    session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult, next_state: str, cause: Cause | None
) -> None:
    _note_discarded(session, study, piece, result)
    for notice in result.notices:
        _event(session, study, EventKind.TRIAL_NOTICE, notice.model_dump(mode="json"), piece.trial_number)
    if next_state == "done":
        _reported(session, study, piece, result)
    elif next_state == "failed":
        _failed(session, study, piece, result)
    else:
        _interrupted(session, study, piece, result, cause, retried=next_state == "waiting")


def _note_discarded(session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult) -> None:
    if result.discarded_snapshots:
        payload = {"snapshots": list(result.discarded_snapshots), "resumed_from_examples": result.resumed_from_examples}
        _event(session, study, EventKind.SNAPSHOT_DISCARDED, payload, piece.trial_number)


def _reported(session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult) -> None:
    assert result.eval_loss is not None
    assert result.snapshot is not None
    loss, trial_id = result.eval_loss, piece.optuna_trial_id
    attempt_ends.set_snapshots(session, piece.id, [result.snapshot.model_dump()])
    study.storage.set_trial_intermediate_value(trial_id, piece.until_examples, loss)
    # optuna-dashboard lists a running trial without its losses, but with its attributes.
    for name, fact in (("rung", piece.until_examples), ("last_loss", loss)):
        study.storage.set_trial_user_attr(trial_id, name, fact)
    if result.fold_losses:
        attempt_ends.set_fold_losses(session, piece.id, result.fold_losses)
        study.fold_losses.setdefault(piece.trial_number, {})[piece.until_examples] = result.fold_losses
    measures = {
        "flops_per_example": result.flops_per_example,
        "adapter_parameters": result.adapter_parameters,
        "test_loss": result.test_loss,
    }
    for name, measure in measures.items():
        if measure is not None:
            study.storage.set_trial_user_attr(trial_id, name, measure)
    _note_memory(study, piece, result)
    payload = {"examples": piece.until_examples, "loss": loss, "seconds": result.usage.total_seconds()}
    _event(session, study, EventKind.TRIAL_REPORTED, payload, piece.trial_number)
    if result.finished:
        study.storage.set_trial_user_attr(trial_id, "hpo_state", "ended")
        study.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, study.values(piece.trial_number, loss))
        _event(session, study, EventKind.TRIAL_COMPLETED, {"loss": loss}, piece.trial_number)
        trial_notes.write(study, piece.trial_number)
        return
    study.storage.set_trial_user_attr(trial_id, "hpo_state", PAUSED)
    judgement = study.strategy.judge(study.view(), piece.trial_number)
    if judgement.verdict == "prune":
        study.storage.set_trial_user_attr(trial_id, "hpo_state", "ended")
        study.storage.set_trial_state_values(trial_id, TrialState.PRUNED, study.values(piece.trial_number, loss))
        trial_notes.write(study, piece.trial_number)
    kind = EventKind.TRIAL_PRUNED if judgement.verdict == "prune" else EventKind.TRIAL_PAUSED
    _event(session, study, kind, {"reason": judgement.reason, "loss": loss}, piece.trial_number)


def _note_memory(study: LiveStudy, piece: LiveSlice, result: SliceResult) -> None:
    if result.predicted_memory_bytes is not None:
        attr = ("predicted_memory_bytes", result.predicted_memory_bytes)
        study.storage.set_trial_user_attr(piece.optuna_trial_id, *attr)


def _failed(session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult) -> None:
    trial_id = piece.optuna_trial_id
    for name, value in (("outcome", str(result.outcome)), ("message", result.message), ("hpo_state", "ended")):
        study.storage.set_trial_user_attr(trial_id, name, value)
    _note_memory(study, piece, result)
    study.storage.set_trial_state_values(trial_id, TrialState.FAIL)
    trial_notes.write(study, piece.trial_number)
    payload = {"outcome": str(result.outcome), "message": result.message}
    _event(session, study, EventKind.TRIAL_FAILED, payload, piece.trial_number)
    if result.outcome in _ABOUT_THE_STUDY:
        study_state.fail_study(session, study, f"trial {piece.trial_number}: {result.message}")
    elif result.outcome in _RETRIED and _hopeless(study.trials()):
        why = f"{_HOPELESS_TRIALS} trials failed and none reported a loss; the last one: {result.message}"
        study_state.fail_study(session, study, why)


def _hopeless(trials: list[FrozenTrial]) -> bool:
    failed = sum(trial.state is TrialState.FAIL for trial in trials)
    return failed >= _HOPELESS_TRIALS and not any(trial.intermediate_values for trial in trials)


def _interrupted(
    session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult, cause: Cause | None, *, retried: bool
) -> None:
    """Preempted, lost or broken: the trial keeps its newest snapshot and waits, paused, for the next attempt."""
    study.storage.set_trial_user_attr(piece.optuna_trial_id, "hpo_state", PAUSED)
    if result.snapshot is not None:
        known = dispatch.slice_snapshots(session, piece.id)
        attempt_ends.set_snapshots(session, piece.id, [result.snapshot.model_dump(), *known])
    if retried:
        payload = {
            "slice_id": piece.id,
            "attempt": piece.attempt,
            "outcome": str(result.outcome),
            "cause": cause,
            "message": result.message,
        }
        _event(session, study, EventKind.SLICE_RETRIED, payload, piece.trial_number)


def _event(session: Session, study: LiveStudy, kind: EventKind, payload: dict[str, Any], trial: int) -> None:
    dispatch.add_event(session, study.project_id, study.id, kind, payload, trial)
