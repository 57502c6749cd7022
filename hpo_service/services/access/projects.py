"""Projects: the first one, `default`, administers them all."""

from sqlalchemy.orm import Session

from hpo_service.auth.principals import Principal
from hpo_service.core.errors import Conflict, Forbidden
from hpo_service.services.access.key_schemas import ProjectDocument
from hpo_service.services.common.names import require_name
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.storage.queries import audit, projects
from hpo_service.storage.tables import Project


def require_first(caller: Principal) -> None:
    """Raises Forbidden for callers of other projects than `default`."""
    if not caller.in_default_project:
        raise Forbidden("projects are administered with a key of project default; this key belongs to another one.")


def id_of(session: Session, name: str) -> int:
    """Raises NotFound."""
    return projects.find(session, name).id


def list_projects(session: Session, *, page_size: int, page_token: str | None) -> Page[ProjectDocument]:
    """The oldest first."""
    after = 0 if page_token is None else read_token(page_token)
    rows = projects.oldest_first(session, after_id=after, limit=page_size + 1)
    shown = rows[:page_size]
    return Page[ProjectDocument](
        items=[_document(row) for row in shown],
        next_page_token=str(shown[-1].id) if len(rows) > page_size else None,
    )


def create(session: Session, name: str) -> ProjectDocument:
    """Make a project; keys of it are made with `hpo key create --project`. Raises Conflict if the name is taken."""
    require_name(name, "project")
    made = projects.add(session, name)
    if made is None:
        raise Conflict(f"there is a project {name!r} already; choose another name.")
    audit.tell(session, f"projects/{name}")
    return _document(made)


def _document(row: Project) -> ProjectDocument:
    return ProjectDocument(name=row.name, promotion_approval=row.promotion_approval, created_at=row.created_at)
