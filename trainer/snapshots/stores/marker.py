"""The marker: a random id that the leading dispatcher leaves in its store, and that its workers find in theirs.

The id reaches a worker through the store only, so a worker that knows it sees the same store.
"""

from secrets import token_hex

from pydantic import ValidationError

from trainer.common.errors import SnapshotError
from trainer.snapshots.stores.base import Store
from trainer.spec.base import Frozen

MARKER = "marker.json"
#: ids of earlier leaders that are kept, whose workers may live on
_EARLIER = 50


class Marker(Frozen):
    """What stands in the store. `earlier` are ids that earlier leaders left there, newest first."""

    id: str
    epoch: int
    earlier: tuple[str, ...] = ()

    def known(self) -> frozenset[str]:
        """Every id that proves that the store is this one."""
        return frozenset({self.id, *self.earlier})


def read_marker(store: Store) -> Marker:
    """The marker in the store.

    Raises:
        SnapshotError: there is none.
        OSError: the store does not answer.
    """
    try:
        return Marker.model_validate_json(store.get(MARKER))
    except ValidationError as error:
        raise SnapshotError(f"{MARKER} cannot be understood: {error}") from error


def leave_marker(store: Store, epoch: int) -> Marker:
    """Leave a new marker in the store; what earlier leaders left stays known.

    Raises:
        OSError: the store does not answer or is full.
    """
    store.prepare()
    try:
        before = read_marker(store)
        earlier = (before.id, *before.earlier)[:_EARLIER]
    except SnapshotError:
        earlier = ()
    marker = Marker(id=token_hex(16), epoch=epoch, earlier=earlier)
    store.put(MARKER, marker.model_dump_json().encode())
    return marker
