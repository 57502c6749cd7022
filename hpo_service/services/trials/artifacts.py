"""What a trial left in the snapshot store: its adapter and its log. Digests are checked before sending."""

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound, Unavailable
from hpo_service.services.trials.read import find_trial
from hpo_service.storage.queries import attempts
from trainer.common.errors import SnapshotError
from trainer.snapshots.stores import Store
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG
from trainer.snapshots.stores.verify import open_files
from trainer.spec import SnapshotRef

_MAX_TAIL_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Archive:
    """A tar file that is made while it is sent."""

    files: Sequence[tuple[str, int, IO[bytes]]]
    examples_seen: int

    @property
    def size_bytes(self) -> int:
        """Length of the whole archive."""
        return sum(_BLOCK_BYTES + _padded(size) for _, size, _ in self.files) + 2 * _BLOCK_BYTES

    def chunks(self) -> Iterator[bytes]:
        """The archive; the files are closed at its end."""
        with ExitStack() as stack:
            for _, _, file in self.files:
                stack.enter_context(file)
            for name, size, file in self.files:
                header = tarfile.TarInfo(name)
                header.size, header.mode = size, 0o644
                yield header.tobuf(tarfile.GNU_FORMAT)  # USTAR knows no file above 8 GiB
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
                yield bytes(_padded(size) - size)
            yield bytes(2 * _BLOCK_BYTES)


def find_snapshots(session: Session, project_id: int, name: str, number: int) -> list[SnapshotRef]:
    """Snapshots of a trial, newest first. Raises NotFound."""
    study, _ = find_trial(session, project_id, name, number)
    known = attempts.snapshots_of_trial(session, project_id, study.id, number)
    if not known:
        raise NotFound(f"trial {number} of study {name!r} has no snapshot yet.")
    return [SnapshotRef.model_validate(snapshot) for snapshot in known]


def open_adapter(snapshots: Sequence[SnapshotRef], store: Store) -> Archive:
    """The adapter of the newest snapshot that is whole.

    Raises:
        NotFound: none is.
        Unavailable: the snapshot store does not answer.
    """
    for snapshot in snapshots:
        try:
            return Archive(open_files(store, snapshot, (ADAPTER_CONFIG, ADAPTER)), snapshot.examples_seen)
        except SnapshotError:
            continue
        except OSError as error:
            raise away(store, error) from error
    raise NotFound("no snapshot of this trial is whole any more.")


def find_log(session: Session, project_id: int, name: str, number: int) -> str:
    """The folder of the store with the log of a trial. Raises NotFound."""
    study, trial = find_trial(session, project_id, name, number)
    return f"{study.id}/{trial.row.trial_id}"


def read_tail(store: Store, folder: str, lines: int) -> bytes:
    """The last lines of a log; nothing if there is none yet. Raises Unavailable."""
    try:
        # One byte more tells whether the first line is whole.
        content = store.log_tail(folder, _MAX_TAIL_BYTES + 1)
    except OSError as error:
        raise away(store, error) from error
    found = content.splitlines(keepends=True)
    return b"".join((found[1:] if len(content) > _MAX_TAIL_BYTES else found)[-lines:])


def away(store: Store, error: OSError) -> Unavailable:
    """The snapshot store does not answer."""
    return Unavailable(f"the snapshot store {store.location} does not answer: {error}; try again later.")


def _padded(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
