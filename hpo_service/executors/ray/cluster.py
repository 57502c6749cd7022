"""The cluster: its devices, and the actors that are made and found there. Calls may block while it does not answer."""

import logging
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.util import list_named_actors, placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hpo_service.executors.ray.host import WorkerHost
from trainer.common.failpoints import RayFailpoint, reach

log = logging.getLogger(__name__)

NAMESPACE = "hpo"
_PREFIX = "hpo-worker-"
#: commands that must keep their order, on one thread, which may get stuck; and everything else
_COMMANDS, _OTHERS = "commands", "others"
_ORDERED = frozenset({"launch", "submit", "stop", "take"})
_OTHER_THREADS = 6

Answer = str | int | Exception


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Devices of the living nodes: of each node in all, and how many of the cluster's nobody uses."""

    by_node: Mapping[str, int]
    free: int

    @property
    def total(self) -> int:
        """Devices of the cluster."""
        return sum(self.by_node.values())


class Host:
    """One actor. Its answers are delivered on a thread of Ray's."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401
        self._actor = actor

    def ask(self, method: str, *arguments: str | int, then: Callable[[Answer], None]) -> None:
        """Call a method of `WorkerHost`; `then` gets what it answers, or why there is no answer."""
        group = _COMMANDS if method in _ORDERED else _OTHERS

        def deliver(future: "Future[str | int]") -> None:
            error = future.exception()
            then(future.result() if error is None else error if isinstance(error, Exception) else RuntimeError(error))

        try:
            reference = getattr(self._actor, method).options(concurrency_group=group).remote(*arguments)
            reference.future().add_done_callback(deliver)
        except Exception as error:
            then(error)

    def kill(self) -> None:
        """End the actor's process, whatever it does."""
        ray.kill(self._actor)


@dataclass(frozen=True)
class Found:
    """The living hosts of a worker, by rank; none where only the place that was kept for them is left."""

    ranks: int
    hosts: dict[int, Host]


def is_final(error: Exception) -> bool:
    """Whether the actor is gone for good; else it may answer again."""
    return isinstance(error, ActorDiedError) and not isinstance(error, ActorUnavailableError)


def lost_its_node(error: Exception) -> bool:
    """Whether the actor is gone because its node is."""
    return isinstance(error, ActorDiedError) and "its node has died" in str(error)


class Cluster:
    """A Ray cluster, of which this process's machine is a node. Workers live in namespace `hpo`."""

    def __init__(self, address: str, resource: str) -> None:
        self._address = address
        self._resource = resource

    def connect(self) -> None:
        """Join as a driver, on the main thread. Raises an error of Ray's if the cluster does not answer."""
        on_sigterm = signal.getsignal(signal.SIGTERM)
        ray.init(
            address=self._address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            include_dashboard=False,
        )
        # Ray's own ends the process at once.
        signal.signal(signal.SIGTERM, on_sigterm)

    def disconnect(self) -> None:
        """Leave; the workers stay."""
        ray.shutdown()

    def survey(self) -> Survey:
        """What devices there are now. Raises ConnectionError where this process belongs to a cluster that is gone."""
        by_node = {
            node["NodeID"]: int(node["Resources"].get(self._resource, 0)) for node in ray.nodes() if node["Alive"]
        }
        if ray.get_runtime_context().get_node_id() not in by_node:
            raise ConnectionError("this machine is no living node of it")
        return Survey(by_node=by_node, free=int(ray.available_resources().get(self._resource, 0)))

    def create(self, worker: str, ranks: int, orphan_seconds: int) -> list[Host]:
        """Make the actors of a worker, one a rank, in order; they start when the cluster has devices for them all."""
        options: dict[str, Any] = {"num_cpus": 0} | self.actor_options()
        if ranks > 1:
            group = self._make_group(worker, ranks)
        hosts = []
        for rank in range(ranks):
            reach(RayFailpoint.ACTOR_BEFORE_MAKE)
            if ranks > 1:
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, rank)
            actor = ray.remote(concurrency_groups={_COMMANDS: 1, _OTHERS: _OTHER_THREADS})(WorkerHost).options(
                name=f"{_PREFIX}{worker}.{rank}.{ranks}",
                namespace=NAMESPACE,
                lifetime="detached",
                max_restarts=0,
                **options,
            )
            hosts.append(Host(actor.remote(worker, orphan_seconds)))
            reach(RayFailpoint.ACTOR_AFTER_MAKE)
        return hosts

    def actor_options(self) -> dict[str, Any]:
        """What Ray is told of every actor beside its name: the device that it needs."""
        if self._resource == "GPU":
            return {"num_gpus": 1}
        if self._resource == "CPU":
            return {"num_cpus": 1}
        return {"resources": {self._resource: 1}}

    def find(self) -> dict[str, Found]:
        """The actors of all workers, by worker, and workers of which nothing but a placement group is left."""
        found = {
            group["name"].removeprefix(_PREFIX): Found(ranks=len(group["bundles"]), hosts={})
            for group in _placement_groups()
        }
        for name in list_named_actors():
            if name.startswith(_PREFIX):
                worker, rank, ranks = name.removeprefix(_PREFIX).rsplit(".", 2)
                hosts = found.setdefault(worker, Found(ranks=int(ranks), hosts={})).hosts
                with suppress(ValueError):
                    hosts[int(rank)] = Host(ray.get_actor(name))
        return found

    def remove(self, worker: str) -> None:
        """End what is left of a worker: its actors and the place that was kept for them."""
        found = self.find().get(worker)
        for host in found.hosts.values() if found is not None else ():
            host.kill()
        for group in _placement_groups():
            if group["name"] == _PREFIX + worker:
                remove_placement_group(ray.util.get_placement_group(group["name"]))
                log.info("the placement group of worker %s is given back", worker)

    def _make_group(self, worker: str, ranks: int) -> PlacementGroup:
        """Keep a place for all ranks: one node if one has so many devices."""
        fits = any(devices >= ranks for devices in self.survey().by_node.values())
        reach(RayFailpoint.GROUP_BEFORE_MAKE)
        group = placement_group(
            [{self._resource: 1.0}] * ranks,
            strategy="STRICT_PACK" if fits else "PACK",
            name=_PREFIX + worker,
            lifetime="detached",
        )
        reach(RayFailpoint.GROUP_AFTER_MAKE)
        return group


def _placement_groups() -> list[dict[str, Any]]:
    """Those of workers that are not given back."""
    groups = ray.util.placement_group_table().values()
    return [group for group in groups if group["name"].startswith(_PREFIX) and group["state"] != "REMOVED"]
