"""What happened, as a sentence for people."""

from collections.abc import Mapping
from typing import Any

from hpo_service.core.messages import EventKind
from trainer.spec import Outcome

Payload = Mapping[str, Any]


def describe(kind: str, trial_number: int | None, payload: Payload) -> str | None:
    """An event as a line without a name at its front; None for those that are not worth one."""
    if trial_number is not None:
        return _of_trial(f"trial {trial_number}", kind, payload)
    if kind.startswith(("worker.", "dispatcher.")):
        return _of_service(kind, payload)
    match kind:
        case EventKind.STUDY_STATE:
            return f"study is {payload['state']}{_after_colon(payload.get('message'))}"
        case EventKind.STUDY_CHANGED:
            return "budget or ranges were extended"
        case EventKind.BUDGET_NEARLY_SPENT | EventKind.STUDY_DTYPE:
            return str(payload["message"])
        case EventKind.DATA_CHECKED:
            found = "; ".join(f"{finding['check']}: {finding['message']}" for finding in payload["findings"])
            return f"data check: {payload['verdict']}{f' ({found})' if found else ''}"
        case EventKind.INTENT_REFUSED:
            return f"{payload['intent']} was refused: {payload['error']}"
        case _:
            return None


def _of_service(kind: str, payload: Payload) -> str | None:
    worker = f"worker {payload.get('worker')}"
    message = _after_colon(payload.get("message"))
    match kind:
        case EventKind.WORKER_LOST:
            return f"{worker} is lost{message}"
        case EventKind.WORKER_ENDED:
            return f"{worker} has ended{message}"
        case EventKind.WORKER_DRAINING:
            return f"{worker} is draining{message}"
        case EventKind.WORKER_QUARANTINED:
            return f"{worker} is quarantined{message}"
        case EventKind.WORKER_RELEASED:
            return f"{worker} is released"
        case EventKind.WORKER_REFUSED:
            return f"{worker} on {payload['node']} gets no work{message}"
        case EventKind.WORKER_NOT_REPEATABLE:
            return f"{worker} cannot repeat a step{message}"
        case EventKind.DISPATCHER_TOOK_OVER:
            kept, lost = payload.get("attempts_kept", 0), payload.get("attempts_lost", 0)
            return f"a dispatcher took over; of what ran, {kept} went on and {lost} began again"
        case _:
            return None


def _of_trial(trial: str, kind: str, payload: Payload) -> str | None:
    match kind:
        case EventKind.TRIAL_QUEUED:
            return f"{trial} waits for a slot"
        case EventKind.SLICE_STARTED:
            return f"{trial} starts towards {payload['until_examples']} examples ({payload['reason']})"
        case EventKind.SLICE_RETRIED:
            return f"{trial} {_again(payload)}"
        case EventKind.TRIAL_REPORTED:
            return f"{trial} has loss {_loss(payload['loss'])} after {payload['examples']} examples"
        case EventKind.TRIAL_PAUSED | EventKind.TRIAL_PRUNED:
            return f"{trial} is {kind.removeprefix('trial.')}{_after_colon(payload['reason'])}"
        case EventKind.TRIAL_COMPLETED:
            return f"{trial} is complete with loss {_loss(payload['loss'])}"
        case EventKind.TRIAL_FAILED:
            return f"{trial} failed ({payload['outcome']}){_after_colon(payload['message'])}"
        case EventKind.SNAPSHOT_DISCARDED:
            return f"{trial} goes on from {payload['resumed_from_examples']} examples; newer snapshots do not verify"
        case EventKind.TRIAL_NOTICE:
            return f"{trial}: {payload['message'] or payload['kind']}"
        case _:
            return None


def _again(payload: Payload) -> str:
    """A pause or a worker that drains is no failure, so nothing is tried again."""
    if payload["outcome"] == Outcome.PREEMPTED:
        return "was stopped on request and will go on from where it is"
    return f"is tried again after {payload['outcome']}{_after_colon(payload['message'])}"


def _after_colon(text: str | None) -> str:
    return f": {text}" if text else ""


def _loss(value: float | None) -> str:
    return "that is not finite" if value is None else f"{value:.5g}"
