"""Tables of the audit log, in schema `hpo`. Rows are only ever added: triggers and grants refuse everything else."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from hpo_service.storage.tables import Base


class AuditRow(Base):
    """Somebody changed something, or was refused. Each project has a chain of its own (`storage.audit_chain`)."""

    __tablename__ = "audit"
    project_id: Mapped[int] = mapped_column(ForeignKey("hpo.projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  #: from 1, without a gap in each project
    at: Mapped[datetime]  #: by the database's clock
    who: Mapped[str]  #: `hpo_key_<id>`, or the user of the service's machine
    key_id: Mapped[int | None]  #: None: done with the database at hand
    action: Mapped[str]  #: the API's operation id
    object: Mapped[str]
    outcome: Mapped[str]  #: done, unchanged, refused, failed
    status: Mapped[int | None]  #: of the HTTP answer
    request_id: Mapped[str | None]
    client: Mapped[str | None]  #: address that the request came from
    details: Mapped[str]  #: JSON; as text, so that it stays what was hashed
    previous: Mapped[str]
    hash: Mapped[str]

    __table_args__ = (Index("ix_audit_project_id_at", "project_id", "at"),)


class AuditHead(Base):
    """Where a project's chain ends. The database moves it with every row, so that rows at the end are missed too."""

    __tablename__ = "audit_heads"
    project_id: Mapped[int] = mapped_column(ForeignKey("hpo.projects.id"), primary_key=True)
    number: Mapped[int]
    hash: Mapped[str]
