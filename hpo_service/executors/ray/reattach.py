"""Meeting the workers that an earlier dispatcher left behind."""

import logging
import queue
import time
from functools import partial

from hpo_service.executors.ray.actions import Actions
from hpo_service.executors.ray.cluster import Answer, Cluster, Found
from hpo_service.executors.ray.protocol import HostState
from hpo_service.executors.ray.remote_worker import Owner, RemoteWorker
from trainer.common.failpoints import RayFailpoint, reach

log = logging.getLogger(__name__)

#: below the dispatcher's lease; whoever does not answer by then is taken for dead
_ANSWER_SECONDS = 4.0


def meet_workers(cluster: Cluster, dispatcher: str, owner: Owner, actions: Actions) -> dict[str, RemoteWorker]:
    """Make all hosts obey `dispatcher`; the workers of which every host answered. What is left of others is ended."""
    found = cluster.find()
    reach(RayFailpoint.ATTACH_BEFORE_ASK)
    states = _ask(found, dispatcher)
    reach(RayFailpoint.ATTACH_AFTER_ANSWER)
    met = {}
    for name, one in found.items():
        answered = {rank: states[name, rank] for rank in one.hosts if (name, rank) in states}
        if len(answered) == one.ranks and all(state.launch is not None for state in answered.values()):
            met[name] = RemoteWorker(name, one.ranks, dispatcher, owner, actions)
            met[name].meet(one.hosts, answered)
        else:
            log.warning("%d of %d hosts of worker %s answer; it is ended", len(answered), one.ranks, name)
            cluster.remove(name)
    return met


def _ask(found: dict[str, Found], dispatcher: str) -> dict[tuple[str, int], HostState]:
    answers: queue.Queue[tuple[tuple[str, int], Answer]] = queue.Queue()
    asked = [(name, rank, host) for name, one in found.items() for rank, host in one.hosts.items()]
    for name, rank, host in asked:
        host.ask("attach", dispatcher, then=partial(_put, answers, (name, rank)))
    deadline = time.monotonic() + _ANSWER_SECONDS
    states = {}
    for _ in asked:
        try:
            who, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(answer, str):
            states[who] = HostState.model_validate_json(answer)
    return states


def _put(answers: "queue.Queue[tuple[tuple[str, int], Answer]]", who: tuple[str, int], answer: Answer) -> None:
    answers.put((who, answer))
