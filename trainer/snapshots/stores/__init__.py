"""Snapshot stores: a folder, or an object store by URL. Nothing here imports torch, so that the service can use it."""

from importlib import import_module
from pathlib import Path

from trainer.common.errors import UserError
from trainer.snapshots.stores.base import Store
from trainer.snapshots.stores.folder import FolderStore
from trainer.snapshots.stores.location import is_url, parse_location

__all__ = ["Store", "open_store"]


def open_store(location: str | Path) -> Store:
    """The store at a path or URL; nothing is read or written yet.

    Raises:
        UserError: the URL is of another form, or its library is not installed.
    """
    parsed = parse_location(location)
    if not is_url(parsed):
        return FolderStore(Path(parsed))
    try:
        store: Store = import_module("trainer.snapshots.stores.objects").ObjectStore(parsed)
    except ImportError as error:
        remedy = "pip install 'hpo-service[object-store]'" if parsed.startswith("s3:") else f"install {error.name}"
        raise UserError(f"the snapshot store {parsed} needs a library that is missing ({error}): {remedy}") from error
    return store
