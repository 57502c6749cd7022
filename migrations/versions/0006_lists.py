"""What studies consumed, kept as sums; indexes for pages of slices and for a study's last expected improvement."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_ZERO = sa.text("0")
_WHOLE = ("examples", "steps", "tokens", "peak_memory_bytes", "unknown_energies", "unknown_peaks")
_REAL = (
    "flops",
    "train_flops",
    "train_hardware_flops",
    "load_seconds",
    "data_seconds",
    "train_seconds",
    "evaluate_seconds",
    "snapshot_seconds",
    "device_seconds",
    "cost_usd",
    "energy_joules",
    "available_flops",
)
_SECONDS = "(load_seconds + data_seconds + train_seconds + evaluate_seconds + snapshot_seconds)"
_SUMS = {
    "peak_memory_bytes": "max(peak_memory_bytes)",
    "unknown_energies": f"count(*) FILTER (WHERE energy_joules IS NULL AND {_SECONDS} > 0)",
    "unknown_peaks": "count(*) FILTER (WHERE peak_flops_per_second IS NULL AND train_seconds + data_seconds > 0)",
    "device_seconds": f"sum({_SECONDS} * devices)",
    "energy_joules": "coalesce(sum(energy_joules), 0)",
    "available_flops": "coalesce(sum((train_seconds + data_seconds) * devices * peak_flops_per_second), 0)",
}
_DECISIONS = "kind = 'slice.started' AND payload['numbers'] ? 'expected_improvement'"


def upgrade() -> None:
    """Apply; the sums begin with all attempts that have ended."""
    op.create_table(
        "study_usage",
        sa.Column("study_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False, server_default=_ZERO) for name in _WHOLE),
        *(sa.Column(name, sa.Double(), nullable=False, server_default=_ZERO) for name in _REAL),
        sa.PrimaryKeyConstraint("study_id", name="pk_study_usage"),
        sa.ForeignKeyConstraint(["project_id"], ["hpo.projects.id"], name="fk_study_usage_project_id"),
        sa.ForeignKeyConstraint(
            ["project_id", "study_id"],
            ["hpo.studies.project_id", "hpo.studies.id"],
            name="fk_study_usage_project_id_study_id",
        ),
        schema=_SCHEMA,
    )
    names = (*_WHOLE, *_REAL)
    sums = ", ".join(_SUMS.get(name, f"sum(a.{name})") for name in names)
    op.execute(
        f"INSERT INTO hpo.study_usage (study_id, project_id, {', '.join(names)}) "  # noqa: S608
        f"SELECT s.study_id, s.project_id, {sums} FROM hpo.attempts a JOIN hpo.slices s ON s.id = a.slice_id "
        "WHERE a.outcome IS NOT NULL GROUP BY s.study_id, s.project_id"
    )
    op.create_index("ix_slices_study_id_id", "slices", ["study_id", "id"], schema=_SCHEMA)
    op.create_index(
        "ix_events_expected_improvement",
        "events",
        ["study_id", "id"],
        schema=_SCHEMA,
        postgresql_where=sa.text(_DECISIONS),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_events_expected_improvement", table_name="events", schema=_SCHEMA)
    op.drop_index("ix_slices_study_id_id", table_name="slices", schema=_SCHEMA)
    op.drop_table("study_usage", schema=_SCHEMA)
