"""Changes that are meant for what the caller has seen: `If-Match`."""

from hpo_service.core.errors import PreconditionFailed


def require_match(if_match: str | None, etag: str, what: str) -> None:
    """Raises PreconditionFailed if the header is there and names another state of `what` than `etag`, nor `*`."""
    if if_match is not None and not {"*", etag}.intersection(part.strip() for part in if_match.split(",")):
        raise PreconditionFailed(f"{what} was changed meanwhile; read it again and repeat the change.")
