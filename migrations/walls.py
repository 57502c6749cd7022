"""The wall between projects, for migrations that make a table: every table with `project_id` needs one."""

from alembic import op

_SETTING = "current_setting('hpo.project_id', true)"
#: evaluated once a statement, not once a row
_ALL = f"(SELECT {_SETTING}) = '*'"
_MINE = f"(SELECT nullif(rtrim({_SETTING}, '*'), '')::bigint)"


def raise_wall(table: str, column: str = "project_id") -> None:
    """Rows are read and written by those who named their project, or `*`; by nobody where nothing was named."""
    op.execute(f"ALTER TABLE hpo.{table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY project ON hpo.{table} USING ({_ALL} OR {column} = {_MINE})")


def open_to_readers(table: str) -> None:
    """Beside `raise_wall`: every project reads all rows; they are the service's own and say nothing of a project."""
    op.execute(f"CREATE POLICY readers ON hpo.{table} FOR SELECT USING (true)")


def take_down(table: str) -> None:
    """Undo `raise_wall`."""
    for policy in ("project", "readers"):
        op.execute(f"DROP POLICY IF EXISTS {policy} ON hpo.{table}")
    op.execute(f"ALTER TABLE hpo.{table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
