"""Promotions: parameters of a trial that may be used in production, with the reasons."""

from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy.orm import Session

from hpo_service import exporters
from hpo_service.auth.principals import Principal
from hpo_service.core.errors import Conflict, Forbidden, NotFound
from hpo_service.services.common.exported_values import ExportedValuesDocument, exported_values
from hpo_service.services.common.if_match import require_match
from hpo_service.services.common.schemas import Document
from hpo_service.services.promotions import verdict as promotion
from hpo_service.services.promotions.schemas import (
    ChangeDocument,
    PromotionDifference,
    PromotionDocument,
    PromotionFacts,
)
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.storage.promotion_tables import Promotion
from hpo_service.storage.queries import audit, promotions
from hpo_service.storage.queries.promotions import Found
from trainer.spec import TrialFile

_COMPARED = ("model", "data", "parameters", "training")


@dataclass(frozen=True)
class Exported:
    """A file with the promotion that it comes from, as `NAME@VERSION`."""

    file: exporters.Rendered
    promotion: str


def list_promotions(
    session: Session, project_id: int, *, name: str | None, page_size: int, page_token: str | None
) -> Page[PromotionDocument]:
    """The newest first, of one name or of all."""
    before = None if page_token is None else read_token(page_token)
    rows = promotions.newest_first(session, project_id, name=name, before_id=before, limit=page_size + 1)
    shown = rows[:page_size]
    return Page[PromotionDocument](
        items=[promotion_document(found) for found in shown],
        next_page_token=str(shown[-1].row.id) if len(rows) > page_size else None,
    )


def find(session: Session, project_id: int, name: str, version: int | None) -> Found:
    """One version; None: the latest that may be used. Raises NotFound."""
    if version is not None:
        return promotions.find(session, project_id, name, version)
    found = promotions.latest(session, project_id, name)
    if found is not None:
        return found
    waiting = promotions.newest_first(session, project_id, name=name, before_id=None, limit=1)
    if waiting:
        raise NotFound(
            f"no version of promotion {name!r} may be used: version {waiting[0].row.version} waits for approval; "
            f"another key approves it with `hpo promotion approve {name}@{waiting[0].row.version}`."
        )
    raise NotFound(f"there is no promotion named {name[:80]!r} in this project.")


def latest_version(session: Session, project_id: int, name: str) -> int | None:
    """The version that is pulled now; None if none may be used."""
    found = promotions.latest(session, project_id, name)
    return None if found is None else found.row.version


def export(session: Session, project_id: int, name: str, version: int | None, format: str, *, strict: bool) -> Exported:
    """The parameters as a file; the same version gives the same bytes. Raises as `find` and `exporters.render`.

    Raises:
        Conflict: the version waits for approval.
    """
    document, label = _usable(session, project_id, name, version)
    return Exported(exporters.render(format, document, strict=strict), label)


def values(
    session: Session, project_id: int, name: str, version: int | None, format: str, *, strict: bool
) -> ExportedValuesDocument:
    """The values of such a file one by one. Raises as `export`, and InvalidRequest if it cannot be taken apart."""
    document, label = _usable(session, project_id, name, version)
    return exported_values(format, document, strict=strict, promotion=label)


def _usable(session: Session, project_id: int, name: str, version: int | None) -> tuple[TrialFile, str]:
    found = find(session, project_id, name, version)
    require_effective(found)
    return TrialFile.model_validate(found.row.document), _label(found.row)


def require_effective(found: Found) -> None:
    """Raises Conflict if the version waits for approval."""
    if not found.effective:
        raise Conflict(
            f"{_label(found.row)} waits for approval and may not be used; another key approves it with "
            f"`hpo promotion approve {_label(found.row)}`."
        )


def approve(session: Session, caller: Principal, name: str, version: int) -> PromotionDocument:
    """Consent to a promotion of another key.

    Raises:
        NotFound: no such promotion.
        Forbidden: the caller made it.
        Conflict: it needs no approval, or has it.
    """
    promotions.lock(session, caller.project_id, name)
    found = promotions.find(session, caller.project_id, name, version)
    if found.effective:
        why = "is approved already" if found.approved_by else "needs no approval"
        raise Conflict(f"{_label(found.row)} {why}.")
    if found.row.api_key_id == caller.key_id:
        raise Forbidden(f"{_label(found.row)} was made with this API key; someone else has to approve it.")
    promotions.approve(session, found.row, caller.key_id)
    return promotion_document(promotions.find(session, caller.project_id, name, version))


def roll_back(
    session: Session, caller: Principal, name: str, version: int | None, note: str, *, if_match: str | None = None
) -> PromotionDocument:
    """Make an earlier version the latest again, as a new version. It was in use, so it needs no second approval.

    Raises:
        NotFound: no such promotion.
        PreconditionFailed: `if_match` names another version than the one in use.
        Conflict: it is in use, was never approved, or there is no earlier one.
    """
    promotions.lock(session, caller.project_id, name)
    latest = find(session, caller.project_id, name, None)
    require_match(if_match, etag(promotion_document(latest)), f"what is used of promotion {name}")
    origin = latest.row.rollback_of or latest.row.version
    if version is None:
        target = promotions.latest_before(session, caller.project_id, name, origin)
        if target is None:
            raise Conflict(f"{_label(latest.row)} is the first version that may be used; there is none to go back to.")
    else:
        target = promotions.find(session, caller.project_id, name, version)
    repeated = target.row.rollback_of or target.row.version
    if repeated == origin:
        raise Conflict(f"{name}@{target.row.version} is what is in use; name another version.")
    if not target.effective:
        raise Conflict(f"{_label(target.row)} was never approved, so it was never in use; approve it instead.")
    number = promotions.next_version(session, caller.project_id, name)
    at = promotions.now(session)
    document = TrialFile.model_validate(target.row.document)
    by = promotions.key_label(session, caller.project_id, caller.key_id)
    told = {"promotion": f"{name}@{number}", "repeats": f"{name}@{repeated}", "promoted_by": by}
    again = document.model_copy(update={"provenance": document.provenance | told})
    row = Promotion(
        project_id=caller.project_id,
        name=name,
        version=number,
        study_id=target.row.study_id,
        trial_number=target.row.trial_number,
        document=again.model_dump(mode="json", by_alias=True),
        facts=target.row.facts,
        rollback_of=repeated,
        needs_approval=False,
        note=note,
        api_key_id=caller.key_id,
        created_at=at,
    )
    promotions.add(session, row)
    audit.tell(session, f"promotions/{name}/{number}", repeats=repeated)
    return promotion_document(promotions.find(session, caller.project_id, name, number))


def etag(promotion: PromotionDocument) -> str:
    """Of one version; changes when it is approved, and with nothing else."""
    canonical = f"{promotion.name}@{promotion.version} {promotion.effective}"
    return f'"{sha256(canonical.encode()).hexdigest()[:20]}"'


def compare(
    session: Session, project_id: int, before: tuple[str, int | None], after: tuple[str, int | None]
) -> PromotionDifference:
    """What differs between two promotions, each by name and version. Raises NotFound."""
    old, new = (find(session, project_id, *which) for which in (before, after))
    found = [
        *promotion.changes(_compared(old), _compared(new)),
        *promotion.changes(_facts(old).model_dump(mode="json"), _facts(new).model_dump(mode="json")),
    ]
    return PromotionDifference(
        before=_label(old.row),
        after=_label(new.row),
        changes=[ChangeDocument(path=one.path, before=one.before, after=one.after) for one in found],
    )


def promotion_document(found: Found) -> PromotionDocument:
    """The promotion as the API shows it."""
    row = found.row
    return PromotionDocument(
        **_members(_facts(found)),
        name=row.name,
        version=row.version,
        study=found.study,
        study_deleted=found.study_deleted,
        trial_number=row.trial_number,
        parameters=TrialFile.model_validate(row.document).parameters.model_dump(),
        effective=found.effective,
        needs_approval=row.needs_approval,
        rollback_of=row.rollback_of,
        note=row.note,
        promoted_by=found.promoted_by,
        created_at=row.created_at,
        approved_by=found.approved_by,
        approved_at=found.approved_at,
    )


def _compared(found: Found) -> dict[str, object]:
    document = TrialFile.model_validate(found.row.document).model_dump(mode="json")
    return {name: document[name] for name in _COMPARED}


def _facts(found: Found) -> PromotionFacts:
    return PromotionFacts.model_validate(found.row.facts)


def _members(document: Document) -> dict[str, object]:
    return {name: getattr(document, name) for name in type(document).model_fields}


def _label(row: Promotion) -> str:
    return f"{row.name}@{row.version}"
