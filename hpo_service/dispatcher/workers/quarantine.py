"""Workers that take nothing more: drained for a while, or quarantined with their places until they are released.

What is decided is written in the dispatcher's transaction, and told to the executor once that is committed.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from hpo_service.core.errors import Conflict, HpoError
from hpo_service.core.messages import EventKind, IntentKind
from hpo_service.core.study_rules import Cause, StudyState
from hpo_service.dispatcher.jobs.jobs import runs_beside
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.dispatcher.workers.fault_detection import Fault
from hpo_service.storage.queries import dispatch, workers
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Intent, Worker

log = logging.getLogger(__name__)

WORKER_INTENTS = frozenset({IntentKind.WORKER_DRAIN, IntentKind.WORKER_QUARANTINE, IntentKind.WORKER_RELEASE})


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the executor is told once it is committed. `broken`: what runs on the worker is lost at once."""

    kind: Literal["drain", "exclude", "include"]
    worker: str
    places: tuple[str, ...] = ()
    reason: str = ""
    broken: bool = False


def write_faults(
    session: Session, context: Context, studies: Iterable[LiveStudy], registered: Mapping[str, int]
) -> list[Order]:
    """Quarantine the workers that were found to be faulty; call it before their ends are settled."""
    orders = []
    for fault in context.faults.found:
        worker_id = context.fleet.worker_ids.get(fault.worker) or registered.get(fault.worker)
        if worker_id is None:
            worker_id = _register_stillborn(session, context, fault)
        _quarantine(session, context, studies, worker_id, fault)
        orders.append(
            Order(kind="exclude", worker=fault.worker, places=fault.places, reason=fault.reason, broken=fault.broken)
        )
    return orders


def fulfil(session: Session, context: Context, studies: Iterable[LiveStudy], intent: Intent) -> list[Order]:
    """Do what the API asked for with a worker. Refused, with the reason, if the worker is no longer like that."""
    try:
        orders = _fulfil(session, context, studies, intent)
    except HpoError as error:
        log.warning("%s is refused: %s", intent.kind, error.detail)
        dispatch.finish_intent(session, intent.id, error.detail)
        return []
    dispatch.finish_intent(session, intent.id, None)
    return orders


def carry_out(context: Context, orders: Iterable[Order]) -> None:
    """After the commit: tell the executor, and ask what runs on the worker to stop at the next step boundary."""
    context.faults.found.clear()
    for order in orders:
        log.warning("worker %s: %s %s", order.worker, order.kind, order.reason)
        if order.kind == "include":
            context.executor.include(order.places)
            context.faults.forgive(order.places)
            continue
        if order.kind == "exclude":
            context.executor.exclude(order.places)
        if order.broken:
            context.executor.kill(order.worker, order.reason, Cause.GPU_FAULT)
        _drain(context, order.worker)


def tell_again(context: Context) -> None:
    """An executor that was just started knows nothing of the places that are excluded."""
    with context.sessions() as session:
        places = [place for worker in workers.quarantined(session) for place in worker.places]
    context.executor.exclude(places)


def drain_again(context: Context) -> None:
    """Workers of an earlier dispatcher that live on and were to end still are."""
    with context.sessions() as session:
        ending = workers.ending(session, context.fleet.worker_ids.values())
    for worker in ending:
        _drain(context, worker)


def _drain(context: Context, worker: str) -> None:
    context.executor.drain(worker)
    for token in context.fleet.held_by(worker):
        if not runs_beside(context.jobs, token):
            context.executor.stop(token)


def _fulfil(session: Session, context: Context, studies: Iterable[LiveStudy], intent: Intent) -> list[Order]:
    name, reason = intent.payload["worker"], intent.payload.get("reason", "")
    match IntentKind(intent.kind):
        case IntentKind.WORKER_DRAIN:
            worker = _require(session, intent, (workers.READY,))
            workers.set_state(session, worker.id, workers.DRAINING, reason)
            dispatch.add_event(
                session, DEFAULT_PROJECT_ID, None, EventKind.WORKER_DRAINING, {"worker": name, "message": reason}
            )
            return [Order(kind="drain", worker=name)]
        case IntentKind.WORKER_QUARANTINE:
            worker = _require(session, intent, (workers.READY, workers.DRAINING))
            fault = Fault(worker=name, reason=reason, places=tuple(worker.places))
            _quarantine(session, context, studies, worker.id, fault)
            return [Order(kind="exclude", worker=name, places=fault.places, reason=reason)]
        case IntentKind.WORKER_RELEASE:
            worker = _require(session, intent, (workers.QUARANTINED,))
            return [_release(session, worker)]
    raise AssertionError(f"{intent.kind} is not about a worker")


def _require(session: Session, intent: Intent, states: tuple[str, ...]) -> Worker:
    name = intent.payload["worker"]
    worker = workers.newest(session, intent.project_id, name, states)
    if worker is None:
        raise Conflict(f"no worker {name!r} is {' or '.join(states)} any more.")
    return worker


def _quarantine(session: Session, context: Context, studies: Iterable[LiveStudy], worker_id: int, fault: Fault) -> None:
    workers.set_state(session, worker_id, workers.QUARANTINED, fault.reason)
    payload = {"worker": fault.worker, "places": list(fault.places), "message": fault.reason}
    dispatch.add_event(session, DEFAULT_PROJECT_ID, None, EventKind.WORKER_QUARANTINED, payload)
    held = set(context.fleet.held_by(fault.worker))
    last = all(other == fault.worker for other in context.fleet.worker_ids)
    for study in studies:
        stands_still = last and study.state is StudyState.RUNNING
        if stands_still or any(piece.token in held for piece in study.running()):
            dispatch.add_event(session, study.project_id, study.id, EventKind.WORKER_QUARANTINED, payload)


def _release(session: Session, worker: Worker) -> Order:
    """Its places may have workers again, but for those where another one is quarantined."""
    others = {place for other in workers.quarantined(session) if other.id != worker.id for place in other.places}
    places = tuple(place for place in worker.places if place not in others)
    workers.release(session, worker.id)
    dispatch.add_event(
        session, DEFAULT_PROJECT_ID, None, EventKind.WORKER_RELEASED, {"worker": worker.name, "places": list(places)}
    )
    return Order(kind="include", worker=worker.name, places=places)


def _register_stillborn(session: Session, context: Context, fault: Fault) -> int:
    """A worker that was never ready has no row yet."""
    assert context.leadership.epoch is not None
    worker_id = workers.register(
        session,
        executor=context.executor.name,
        name=fault.worker,
        node=fault.places[0].rpartition("/")[0],
        places=fault.places,
        device="",
        software={},
        auto_dtype="",
        epoch=context.leadership.epoch,
    )
    workers.end(session, worker_id, fault.reason)
    return worker_id
