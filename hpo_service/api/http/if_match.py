"""`If-Match`: a change is made only if it is meant for what is there."""

from typing import Annotated

from fastapi import Depends, Header

from hpo_service.core.errors import PreconditionRequired

IfMatch = Annotated[str | None, Header(description="`ETag` of what the change is meant for.", max_length=255)]


def _required(
    if_match: Annotated[
        str | None, Header(description="`ETag` of what is replaced; `*`: whatever is there.", max_length=255)
    ] = None,
) -> str:
    if if_match is None:
        raise PreconditionRequired(
            "this replaces all that was set before, so it needs the header If-Match: the `ETag` that GET answers with, "
            "or `*` to replace whatever is there."
        )
    return if_match


RequiredMatch = Annotated[str, Depends(_required)]
"""The header of a change that would undo somebody else's unseen."""
