"""What projects and keys may be called."""

import re

from hpo_service.core.errors import InvalidRequest
from hpo_service.spec.study import NAME_PATTERN


def require_name(name: str, what: str) -> None:
    """Raises InvalidRequest for what is no name."""
    if not re.fullmatch(NAME_PATTERN, name) or name.endswith("\n"):
        raise InvalidRequest(
            f"{name[:80]!r} is no name of a {what}: use 1 to 63 letters, digits, '.', '_' and '-', and begin with a "
            "letter or digit."
        )
