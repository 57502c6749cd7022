"""What the API answers of keys and projects, and how they are asked for."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hpo_service.auth.principals import Scope
from hpo_service.services.common.schemas import Document
from hpo_service.spec.study import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
KeyState = Literal["live", "expired", "revoked"]

_MINUTE_SECONDS = 60
_TEN_YEARS_SECONDS = 10 * 365 * 86400
_DEFAULT_OVERLAP_SECONDS = 7 * 86400
Lifetime = Annotated[int, Field(strict=True, ge=_MINUTE_SECONDS, le=_TEN_YEARS_SECONDS)]


class CreateKeyRequest(BaseModel):
    """Make an API key of the caller's project."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[Name, Field(description="What the key is for; no live key may have it.")]
    scopes: Annotated[
        list[Scope], Field(min_length=1, max_length=len(Scope), description="At most those that the caller has.")
    ]
    expires_in_seconds: Annotated[Lifetime | None, Field(description="null: never.")] = None


class RotateKeyRequest(BaseModel):
    """Make a second key of the same label and scopes; the first one ends later."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: Annotated[
        int, Field(strict=True, ge=0, le=_TEN_YEARS_SECONDS, description="So long the old key still works.")
    ] = _DEFAULT_OVERLAP_SECONDS


class CreateProjectRequest(BaseModel):
    """Make a project."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Name, Field(description="Begins the names of its studies in Optuna's tables.")]


class KeyDocument(Document):
    """An API key without its secret."""

    id: int
    """The number in `hpo_key_<id>_<secret>`."""
    label: str
    scopes: list[str]
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    """null: never."""
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute; null: never."""


class NewKeyDocument(KeyDocument):
    """A key that was just made."""

    key: str
    """The whole key. It cannot be seen again."""
    replaces: KeyDocument | None = None
    """The key that this one was rotated from, with its new end."""


class ProjectDocument(Document):
    """A project."""

    name: str
    promotion_approval: bool
    """Whether a second key has to approve promotions."""
    created_at: datetime
