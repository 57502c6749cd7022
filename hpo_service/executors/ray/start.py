"""From settings to an executor that is connected to its cluster."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Event

from hpo_service.core.errors import SetupError
from hpo_service.executors.ray.cluster import Cluster
from hpo_service.executors.ray.config import RayWorkers
from hpo_service.executors.ray.executor import RayExecutor

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


def connected_executor(address: str | None, workers: RayWorkers, stop: Event) -> RayExecutor:
    """The executor on the cluster at `address`. Waits for a cluster that does not answer, until `stop` is set.

    Raises:
        SetupError: the address is no driver's, or no token is set.
    """
    require_token(os.environ)
    cluster = Cluster(require_address(address), workers.resource)
    while not stop.is_set():
        try:
            cluster.connect()
            break
        except Exception as error:
            log.warning(
                "the Ray cluster at %s does not answer, or its token is not ours; trying again in %g s: %s",
                address,
                _RETRY_SECONDS,
                str(error).splitlines()[0] if str(error) else type(error).__name__,
            )
            cluster.disconnect()
            stop.wait(_RETRY_SECONDS)
    return RayExecutor(workers, cluster)


def require_address(address: str | None) -> str:
    """Raise SetupError unless a driver can use the address."""
    if not address:
        raise SetupError(
            "HPO_EXECUTOR is ray and RAY_ADDRESS is not set; set it to HOST:PORT of the cluster's head. The "
            "dispatcher's machine must be a node of it: ray start --address=HOST:PORT --num-cpus=0 --num-gpus=0."
        )
    if "://" in address:
        raise SetupError(
            f"RAY_ADDRESS is {address!r}; it must be HOST:PORT of the cluster's head without a scheme. The dispatcher "
            "is a driver on a node of the cluster, no Ray client."
        )
    return address


def require_token(environment: Mapping[str, str]) -> None:
    """Raise SetupError unless the cluster's token is used: whoever reaches a cluster without one runs code on it."""
    mode = environment.get("RAY_AUTH_MODE", "")
    remedy = (
        "Make a token once with `ray get-auth-token --generate`, give every node and the dispatcher the same one in "
        "RAY_AUTH_TOKEN, in a file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token, and start all of them with "
        "RAY_AUTH_MODE=token."
    )
    if mode != "token":
        raise SetupError(f"HPO_EXECUTOR is ray and RAY_AUTH_MODE is {mode!r}; it must be 'token'. {remedy}")
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not environment.get("RAY_AUTH_TOKEN") and not (path.is_file() and path.read_text(encoding="utf-8").strip()):
        raise SetupError(f"RAY_AUTH_TOKEN is not set and {path} holds no token. {remedy}")
