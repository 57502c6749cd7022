"""Where a study will stand once what was asked for is carried out. Pure."""

from collections.abc import Iterable

from hpo_service.core.errors import Conflict
from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import TERMINAL, StudyState, require_transition

_RESUMABLE = frozenset({StudyState.PAUSED, StudyState.PAUSING})
_IDLE = frozenset({StudyState.QUEUED, StudyState.PAUSED})
_ENDING = frozenset({StudyState.STOPPING, StudyState.CANCELLING})
STEERING = (IntentKind.PAUSE, IntentKind.RESUME, IntentKind.STOP, IntentKind.CANCEL)


def next_state(name: str, current: StudyState, kind: IntentKind) -> StudyState:
    """The state that a steering intent leads to from `current`. Raises Conflict if it leads nowhere."""
    match kind:
        case IntentKind.PAUSE:
            wanted = StudyState.PAUSED if current is StudyState.QUEUED else StudyState.PAUSING
        case IntentKind.RESUME:
            if current not in _RESUMABLE:
                raise Conflict(f"study {name!r} is {current}; only a paused study can be resumed.")
            wanted = StudyState.RUNNING
        case IntentKind.STOP:
            wanted = StudyState.COMPLETED if current is StudyState.QUEUED else StudyState.STOPPING
        case IntentKind.CANCEL:
            wanted = StudyState.CANCELLED if current in _IDLE else StudyState.CANCELLING
        case _:
            return current
    require_transition(name, current, wanted)
    return wanted


def expected_state(name: str, current: StudyState, pending: Iterable[str]) -> StudyState:
    """The state after the pending intents; one that the dispatcher will refuse changes nothing."""
    for kind in map(IntentKind, pending):
        if _leads_somewhere(name, current, kind):
            current = next_state(name, current, kind)
    return current


def possible(name: str, state: StudyState) -> list[IntentKind]:
    """The steering intents that lead somewhere from a state."""
    return [kind for kind in STEERING if _leads_somewhere(name, state, kind)]


def _leads_somewhere(name: str, state: StudyState, kind: IntentKind) -> bool:
    try:
        next_state(name, state, kind)
    except Conflict:
        return False
    return True


def is_open(state: StudyState) -> bool:
    """Whether a study has not ended and is not about to."""
    return state not in TERMINAL and state not in _ENDING


def require_open(name: str, state: StudyState, what: str) -> None:
    """Raise Conflict if the study has ended or is about to."""
    if not is_open(state):
        raise Conflict(f"study {name!r} is {state} and cannot {what}; clone it instead.")
