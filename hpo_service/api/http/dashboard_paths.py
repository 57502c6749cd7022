"""Which addresses of optuna-dashboard can be reached at all, and which of them name a study.

Its studies are numbers of Optuna's tables and know no project. So each path that is not listed here is none.
Files (`/csv`, `/artifacts`) and pictures that the server would have to draw (`/plot`, which needs plotly) are not.
"""

import re
from dataclasses import dataclass

STUDIES = "/api/studies"  #: the only answer that tells of many studies
_ID = r"(?P<study>[1-9][0-9]{0,9})"
_PAGE = r"[A-Za-z]{1,40}(?:-[A-Za-z]{1,40}){0,3}"
_OF_A_STUDY = re.compile(
    rf"/dashboard/studies/{_ID}(?:/(?:{_PAGE}))?/?"
    rf"|/api/studies/(?P<asked>[1-9][0-9]{{0,9}})(?:/param_importances)?"
)
_OF_NO_STUDY = re.compile(
    r"/dashboard(?:/|/compare-studies/?)?|/api/meta|/api/studies|/favicon\.ico|/static(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+"
)


@dataclass(frozen=True)
class DashboardPath:
    """An address that may be asked for; `study_id` is Optuna's number of the study that it names."""

    path: str
    study_id: int | None

    @property
    def tells_of_studies(self) -> bool:
        """Whether the answer depends on which studies are the caller's."""
        return self.study_id is not None or self.path == STUDIES


def read_path(path: str) -> DashboardPath | None:
    """None for what is not reachable."""
    if named := _OF_A_STUDY.fullmatch(path):
        return DashboardPath(path, int(named["study"] or named["asked"]))
    return DashboardPath(path, None) if _OF_NO_STUDY.fullmatch(path) else None
