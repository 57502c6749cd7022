"""Ending workers that stand still; their slices are lost and go on elsewhere."""

import logging

from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.jobs.jobs import runs_beside
from hpo_service.dispatcher.state.transaction import Context

log = logging.getLogger(__name__)


def end_hung(context: Context) -> None:
    """Kill the workers that hold work and have said nothing for too long. Their ends are heard of like any other."""
    slices, busy = {}, []
    for worker, tokens in context.fleet.by_worker().items():
        held = [token for token in tokens if not runs_beside(context.jobs, token)]
        if held:
            slices[worker] = held
        if len(held) < len(tokens):
            busy.append(worker)
    for still in context.liveness.look(slices, busy):
        log.error("%s; it is killed", still.reason)
        context.executor.kill(still.worker, still.reason, Cause.NO_PROGRESS)
