"""What an actor does to which no dispatcher speaks any more: a pure rule."""

from typing import Literal

#: how long an orphan's slices have to stop at a step boundary
GRACE_SECONDS = 60.0
#: how long it stays for the sake of results that nobody has taken
KEEP_SECONDS = 86_400.0


def next_step(
    silent_seconds: float, orphan_seconds: float, *, runs: bool, keeps: bool
) -> Literal["wait", "stop", "end"]:
    """After `orphan_seconds` of silence: `stop` what `runs`, with a snapshot, then `end`.

    Who `keeps` results, or has a part in a worker that does, waits for `KEEP_SECONDS`: ending would lose their work.
    """
    if silent_seconds < orphan_seconds:
        return "wait"
    if runs and silent_seconds < orphan_seconds + GRACE_SECONDS:
        return "stop"
    return "wait" if keeps and silent_seconds < max(orphan_seconds, KEEP_SECONDS) else "end"
