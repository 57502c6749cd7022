"""Points in time as people write them."""

import re
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator

_WRITTEN_OUT = re.compile(r"\d{4}-")


def _require_written_out(value: object) -> object:
    """Numbers would be taken for seconds or milliseconds since 1970, whichever their size suggests."""
    if isinstance(value, int | float) or (isinstance(value, str) and not _WRITTEN_OUT.match(value)):
        raise ValueError("a time is written with date and zone, such as 2030-01-01T00:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_require_written_out)]
"""With its zone."""
