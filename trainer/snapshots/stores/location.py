"""Where a snapshot store is: the path of a folder or the URL of an object store."""

import re
from pathlib import Path

from trainer.common.errors import UserError

#: by scheme of the URL, what the names of the environment variables with credentials begin with
_CREDENTIALS: dict[str, tuple[str, ...]] = {"s3": ("AWS_",), "gs": ("GOOGLE_",), "memory": ()}
_URL = re.compile(r"^(?P<scheme>[a-z0-9]+)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<prefix>(/[A-Za-z0-9._=-]+)*)/?$")


def parse_location(written: str | Path) -> str:
    """The absolute path or the URL that is meant.

    Raises:
        UserError: a URL of another form; what it says never repeats a secret in the URL.
    """
    text = str(written)
    if "://" not in text:
        return str(Path(text).expanduser().resolve())
    scheme = text.partition("://")[0]
    if scheme not in _CREDENTIALS:
        known = ", ".join(f"{name}://" for name in _CREDENTIALS)
        raise UserError(f"{scheme[:20]!r} is no kind of snapshot store: write a folder's path, or a URL with {known}")
    if "@" in text or "?" in text:
        raise UserError(
            f"the {scheme}:// URL of the snapshot store holds credentials or options: write bucket and prefix only; "
            f"credentials come from the environment ({' or '.join(_CREDENTIALS[scheme]) or 'none'}...)"
        )
    match = _URL.match(text)
    if match is None or {".", ".."} & set(text.split("/")):
        raise UserError(f"{text[:200]!r} is no snapshot store: write {scheme}://BUCKET or {scheme}://BUCKET/PREFIX")
    return text.rstrip("/")


def is_url(location: str | Path) -> bool:
    """Whether it is an object store."""
    return "://" in str(location)


def credential_prefixes(location: str | Path) -> tuple[str, ...]:
    """What the environment variables begin with that a worker needs to reach the store; none for a folder."""
    return _CREDENTIALS.get(str(location).partition("://")[0], ()) if is_url(location) else ()
