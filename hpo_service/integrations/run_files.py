"""What writes the files of a run below a folder, when its tracker asks for them."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hpo_service.core.errors import NotFound, Unavailable
from hpo_service.integrations.base import Registration, SinkAway, SinkRefused
from hpo_service.services.trials.artifacts import open_adapter
from trainer.snapshots.stores import Store
from trainer.spec import SnapshotRef

log = logging.getLogger(__name__)

Writer = Callable[[Path], None]


@contextmanager
def written(write: Writer) -> Iterator[Path]:
    """A folder with what it writes, until the end of the block."""
    with TemporaryDirectory(prefix="hpo-outbox-") as folder:
        write(Path(folder))
        yield Path(folder)


@contextmanager
def written_adapter(registration: Registration) -> Iterator[Path]:
    """The same with what was promoted. Raises SinkRefused where it is not there any more."""
    with written(registration.write_files) as folder:
        if not any(folder.iterdir()):
            raise SinkRefused("the adapter that was promoted is not whole any more")
        yield folder


def text_writer(name: str, text: str) -> Writer:
    """One file with this text."""

    def write(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return write


def adapter_writer(store: Store, snapshots: Sequence[SnapshotRef], run: str) -> Writer:
    """The newest adapter that is whole, in the folder `adapter`; nothing where none is any more."""

    def write(folder: Path) -> None:
        try:
            archive = open_adapter(snapshots, store)
        except NotFound as error:
            log.warning("run %s goes without its adapter: %s", run, error.detail)
            return
        except Unavailable as error:
            raise SinkAway(error.detail) from error
        target = folder / "adapter"
        target.mkdir()
        for name, _, file in archive.files:
            with file, (target / name).open("wb") as copy:
                shutil.copyfileobj(file, copy)

    return write


def all_of(writers: Sequence[Writer]) -> Writer:
    """One after the other."""

    def write(folder: Path) -> None:
        for one in writers:
            one(folder)

    return write
