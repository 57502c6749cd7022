"""Failpoints: named places where a test makes this process die, hang or fail. Off unless `HPO_FAILPOINTS` names them.

`HPO_FAILPOINTS=name[:nth][=kill|hang|error],...`: at the nth time (default: the first) that this process comes by, it
kills itself with SIGKILL (default), stops for ever where it is, or meets an input/output error.
"""

import errno
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

VARIABLE = "HPO_FAILPOINTS"
Action = Literal["kill", "hang", "error"]


class Commit(StrEnum):
    """Transactions of the service. Each has two failpoints: `<name>.before_commit` and `<name>.after_commit`."""

    CREATE = "create"  #: the API writes a study
    STEER = "steer"  #: the API writes any other change
    LEASE = "lease"  #: a dispatcher takes or renews the lease
    RELEASE = "release"  #: it hands the lease back
    TAKE_OVER = "take_over"  #: it accounts for the attempts of earlier dispatchers
    CATCH_UP = "catch_up"  #: attempts that never reached a worker are lost
    HEAR = "hear"  #: what workers and the API said, without any attempt's end
    SETTLE = "settle"  #: the same with attempts that ended
    ACCEPT = "accept"  #: a decision, with the first attempt of its slice
    RETRY = "retry"  #: a later attempt of a slice
    JOB = "job"  #: an attempt at a job
    CONCLUDE = "conclude"  #: a study ends or stops because nothing is left for it
    ACCOUNT = "account"  #: what the snapshots of each project take


class Failpoint(StrEnum):
    """Hand-overs between dispatcher, executor, worker and snapshot store, in the order of a slice."""

    SUBMIT_AFTER = "submit.after"  #: the attempt is committed and handed to the executor
    COMMAND_BEFORE_SEND = "command.before_send"  #: the executor is about to write to the worker's pipe
    READY_BEFORE_SEND = "ready.before_send"  #: the worker is warm and has not said so
    COMMAND_TAKEN = "command.taken"  #: the worker read a command and has not acted on it
    TRIAL_ADMITTED = "trial.admitted"  #: the trial is resumed and has not moved
    PROGRESS_BEFORE_SEND = "progress.before_send"
    PROGRESS_AFTER_SEND = "progress.after_send"
    EVALUATE_BEFORE = "evaluate.before"  #: the rung is reached, nothing of it is on disk
    SNAPSHOT_BEFORE_FILES = "snapshot.before_files"  #: the partial folder is empty
    SNAPSHOT_BEFORE_MANIFEST = "snapshot.before_manifest"  #: files are on disk, the manifest is not
    SNAPSHOT_BEFORE_RENAME = "snapshot.before_rename"  #: whole, but not where anybody looks
    SNAPSHOT_AFTER_RENAME = "snapshot.after_rename"  #: whole and in place, and nobody was told
    RESULT_BEFORE_SEND = "result.before_send"
    RESULT_AFTER_SEND = "result.after_send"
    MESSAGE_BEFORE_DELIVERY = "message.before_delivery"  #: the executor read a message and has not passed it on
    TIDY_BEFORE_REMOVE = "tidy.before_remove"  #: a result is committed, superseded snapshots are still there


class RayFailpoint(StrEnum):
    """Hand-overs of the Ray executor: of a dispatcher to and from the cluster (`ray.`), and in the actor (`host.`)."""

    GROUP_BEFORE_MAKE = "ray.group.before_make"  #: a worker of several ranks is to get a place
    GROUP_AFTER_MAKE = "ray.group.after_make"  #: it has the place, and no actor is there
    ACTOR_BEFORE_MAKE = "ray.actor.before_make"
    ACTOR_AFTER_MAKE = "ray.actor.after_make"  #: the cluster knows the actor, and nobody spoke to it
    LAUNCH_BEFORE_SEND = "ray.launch.before_send"
    LAUNCH_AFTER_SEND = "ray.launch.after_send"
    SUBMIT_BEFORE_SEND = "ray.submit.before_send"
    SUBMIT_AFTER_SEND = "ray.submit.after_send"
    STOP_BEFORE_SEND = "ray.stop.before_send"
    STOP_AFTER_SEND = "ray.stop.after_send"
    RESULT_BEFORE_EVENT = "ray.result.before_event"  #: a result was fetched, the loop does not have it
    RESULT_AFTER_EVENT = "ray.result.after_event"
    TAKE_BEFORE_SEND = "ray.take.before_send"  #: a result is committed, its actor still keeps it
    TAKE_AFTER_SEND = "ray.take.after_send"
    END_BEFORE_SEND = "ray.end.before_send"  #: a drained worker holds nothing and was not told to end
    END_AFTER_SEND = "ray.end.after_send"
    ATTACH_BEFORE_ASK = "ray.attach.before_ask"  #: the actors of an earlier dispatcher are found
    ATTACH_AFTER_ANSWER = "ray.attach.after_answer"  #: they obey this dispatcher, what they hold is not accounted for
    HOST_LAUNCH_BEFORE_START = "host.launch.before_start"
    HOST_LAUNCH_AFTER_START = "host.launch.after_start"
    HOST_SUBMIT_BEFORE_SEND = "host.submit.before_send"  #: the actor has the work, its worker has not
    HOST_SUBMIT_AFTER_SEND = "host.submit.after_send"
    HOST_RESULT_BEFORE_KEEP = "host.result.before_keep"  #: the worker said it, and nothing keeps it
    HOST_RESULT_AFTER_KEEP = "host.result.after_keep"
    HOST_TAKE_BEFORE_FORGET = "host.take.before_forget"
    HOST_TAKE_AFTER_FORGET = "host.take.after_forget"


FAILPOINTS: tuple[str, ...] = (
    *(f"{commit}.{side}_commit" for commit in Commit for side in ("before", "after")),
    *map(str, Failpoint),
    *map(str, RayFailpoint),
)


@dataclass(frozen=True, kw_only=True)
class _Armed:
    nth: int
    action: Action


_armed: dict[str, _Armed] = {}
_passed: Counter[str] = Counter()


def reach(point: Failpoint | RayFailpoint) -> None:
    """This process is at `point`."""
    if _armed:
        _pass(point)


def before_commit(commit: Commit) -> None:
    """All of the transaction is written and nothing is committed."""
    if _armed:
        _pass(f"{commit}.before_commit")


def after_commit(commit: Commit) -> None:
    """The transaction is committed and nobody acted on it."""
    if _armed:
        _pass(f"{commit}.after_commit")


def arm(text: str) -> None:
    """Arm what `text` names, as the variable does, and nothing else. Raises ValueError for what it does not know."""
    _passed.clear()
    _armed.clear()
    _armed.update(_parsed(part) for part in text.split(",") if part)


def _parsed(part: str) -> tuple[str, _Armed]:
    place, _, action = part.partition("=")
    name, _, nth = place.partition(":")
    if name not in FAILPOINTS:
        raise ValueError(f"{VARIABLE} names {name!r}, which is no failpoint; there are {', '.join(FAILPOINTS)}")
    if action not in ("", *get_args(Action)):
        raise ValueError(f"{VARIABLE} wants {action!r} at {name}; it may be {', '.join(get_args(Action))}")
    if nth and not (nth.isdecimal() and int(nth)):
        raise ValueError(f"{VARIABLE} wants time {nth!r} at {name}; it must be a whole number from 1")
    known: dict[str, Action] = {"hang": "hang", "error": "error"}
    return name, _Armed(nth=int(nth or 1), action=known.get(action, "kill"))


def _pass(name: str) -> None:
    armed = _armed.get(name)
    if armed is None:
        return
    _passed[name] += 1
    if _passed[name] != armed.nth:
        return
    os.write(2, f"failpoint {name}: {armed.action}\n".encode())
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if armed.action == "error":
        raise OSError(errno.EIO, f"failpoint {name}")
    while True:
        time.sleep(3600)


arm(os.environ.get(VARIABLE, ""))
