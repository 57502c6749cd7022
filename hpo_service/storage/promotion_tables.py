"""Tables of promotions and deliveries, in schema `hpo`. Their rows never change: triggers of the database refuse it."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from hpo_service.storage.tables import Base


class Promotion(Base):
    """One version of the best parameters called `name`. `document` is what is exported, `facts` why it may be."""

    __tablename__ = "promotions"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("hpo.projects.id"))
    name: Mapped[str]
    version: Mapped[int]  #: from 1, without a gap in each name
    study_id: Mapped[int]
    trial_number: Mapped[int]
    document: Mapped[dict[str, Any]]  #: trainer.spec.TrialFile
    facts: Mapped[dict[str, Any]]  #: services.promotions.schemas.PromotionFacts
    rollback_of: Mapped[int | None]  #: the version that this one repeats
    needs_approval: Mapped[bool]  #: what the project asked for when it was made
    note: Mapped[str] = mapped_column(server_default="")
    api_key_id: Mapped[int] = mapped_column(ForeignKey("hpo.api_keys.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (
        UniqueConstraint("project_id", "name", "version"),
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["project_id", "study_id"], ["hpo.studies.project_id", "hpo.studies.id"]),
    )


class PromotionApproval(Base):
    """A second key's consent to a promotion."""

    __tablename__ = "promotion_approvals"
    promotion_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[int] = mapped_column(ForeignKey("hpo.projects.id"))
    api_key_id: Mapped[int] = mapped_column(ForeignKey("hpo.api_keys.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "promotion_id"], ["hpo.promotions.project_id", "hpo.promotions.id"]),
    )


class Delivery(Base):
    """What was asked to be made of a promotion. How far it is, the jobs say that name it."""

    __tablename__ = "deliveries"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("hpo.projects.id"))
    promotion_id: Mapped[int]
    merge: Mapped[bool]
    quantize: Mapped[str | None]  #: trainer.spec.VariantName
    retrain: Mapped[bool]  #: whether adapters that are there already are passed over
    offered: Mapped[list[Any]]  #: SnapshotRef of the adapters that it begins with, verified when it was asked for
    api_key_id: Mapped[int] = mapped_column(ForeignKey("hpo.api_keys.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["project_id", "promotion_id"], ["hpo.promotions.project_id", "hpo.promotions.id"]),
        Index("ix_deliveries_promotion_id", "promotion_id"),
    )
