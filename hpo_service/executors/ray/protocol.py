"""What a dispatcher and the hosts of its workers say to each other: JSON strings, so that no object is ever pickled."""

from typing import Literal

from pydantic import TypeAdapter

from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import Token
from trainer.spec.base import Frozen


class Place(Frozen):
    """Where a host runs. `devices` are its `node/device`; `leader` is HOST:PORT where rank 0 would wait for others."""

    node: str
    devices: tuple[str, ...]
    leader: str


class Launch(Frozen):
    """What a host starts: rank `rank` of the `ranks` of a worker. `command` follows the host's own Python.

    `credentials` are beginnings of the names of variables of the host that the worker may have.
    """

    command: tuple[str, ...]
    rank: int = 0
    ranks: int
    slots: int
    credentials: tuple[str, ...] = ()


class HostState(Frozen):
    """What a host is, for a dispatcher that meets it. `launch` is None before its worker was started.

    `slices` and `jobs` are attempts that run, wait or have a result to be taken; `base` is that of its last slice.
    """

    place: Place
    launch: Launch | None = None
    slices: tuple[Token, ...] = ()
    jobs: tuple[Token, ...] = ()
    base: str = ""


class Said(Frozen):
    """The `sequence`-th thing that a worker said: a message of `trainer.spec` as JSON, or its end."""

    sequence: int
    kind: Literal["message", "ended"]
    body: str


class Ended(Frozen):
    """The worker's process has ended."""

    reason: str
    replaced: bool
    cause: Cause


said_list: TypeAdapter[list[Said]] = TypeAdapter(list[Said])
