"""Errors that users see: a stable code and a sentence that names the value, the limit and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong. `pointer` is the JSON pointer of the field (RFC 6901), "" for the whole document."""

    detail: str
    pointer: str = ""
    allowed: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The member of `errors` in an RFC 9457 document."""
        body: dict[str, Any] = {"pointer": self.pointer, "detail": self.detail}
        return body | ({"allowed": list(self.allowed)} if self.allowed else {})


class HpoError(Exception):
    """Root of the tree. `code` never changes once released; `status` is the HTTP status."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retry_after_seconds: int | None = None
    """When the same may be asked again, if that is known."""

    def __init__(self, detail: str, *, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = tuple(problems)


class InvalidSpec(HpoError):
    """The study spec cannot be run as written."""

    code = "invalid_spec"
    status = 422


class InvalidRequest(HpoError):
    """The request itself is malformed."""

    code = "invalid_request"
    status = 400


class Unauthenticated(HpoError):
    """No valid API key or session came with the request."""

    code = "unauthenticated"
    status = 401


class Forbidden(HpoError):
    """The caller's key may not do this."""

    code = "forbidden"
    status = 403


class NotFound(HpoError):
    """No such object in the caller's project."""

    code = "not_found"
    status = 404


class Conflict(HpoError):
    """The object's state does not allow this, or the name is taken."""

    code = "conflict"
    status = 409


class QuotaExceeded(Conflict):
    """The project may not have more."""

    code = "quota_exceeded"


class PreconditionFailed(HpoError):
    """The object is not what the caller's `If-Match` says any more."""

    code = "precondition_failed"
    status = 412


class PreconditionRequired(HpoError):
    """The change replaces a whole and came without `If-Match`."""

    code = "precondition_required"
    status = 428


class IdempotencyMismatch(HpoError):
    """The idempotency key was used before with another body."""

    code = "idempotency_mismatch"
    status = 422


class NotExpressible(HpoError):
    """The format that was asked for has no place for something that must not be lost."""

    code = "not_expressible"
    status = 422


class TooLarge(HpoError):
    """The request body is larger than the service accepts."""

    code = "too_large"
    status = 413


class TooManyRequests(HpoError):
    """The caller asks too often."""

    code = "too_many_requests"
    status = 429

    def __init__(self, detail: str, *, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(HpoError):
    """The database or the snapshot store does not answer; nothing was changed."""

    code = "unavailable"
    status = 503
    retry_after_seconds = 2


class SetupError(HpoError):
    """The machine or the configuration does not allow the service to run (ports, folders, PostgreSQL)."""

    code = "setup"


class ClusterLost(HpoError):
    """The cluster of the workers does not answer any more; the dispatcher must end and be started again."""

    code = "cluster_lost"


class LeaseLost(HpoError):
    """Another dispatcher is the leader; this one must drop its memory and stand by."""

    code = "lease_lost"
