"""Which addresses of optuna-dashboard can be reached at all, and which of them name a study.

Its studies are numbers of Optuna's tables and know no project. So each path that is not listed here is none.
Files (`/artifacts`) and pictures that the server would have to draw (`/plot`, which needs plotly) are not.
"""

import re
from dataclasses import dataclass

STUDIES = "/api/studies"  #: the only answer that tells of many studies
_ID = r"(?P<study>[1-9][0-9]{0,9})"
_PAGE = r"[A-Za-z]{1,40}(?:-[A-Za-z]{1,40}){0,3}"
_OF_A_STUDY = re.compile(
    rf"/dashboard/studies/{_ID}(?:/(?:{_PAGE}))?/?"
    rf"|/api/studies/(?P<asked>[1-9][0-9]{{0,9}})(?:/param_importances)?"
    rf"|/csv/(?P<listed>[1-9][0-9]{{0,9}})"
)
_OF_NO_STUDY = re.compile(
    r"/dashboard(?:/|/compare-studies/?)?|/api/meta|/api/studies|/favicon\.ico|/static(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+"
)


READ_ONLY = "The dashboard is for looking only. Change a study in the console (/), with the command hpo, or over /v1."
#: what the dashboard offers that would change something: create, rename, delete a study, edit a note, skip a trial
HIDDEN = (
    '[aria-label="rename study"],[aria-label="delete study"],[aria-label="skip trial"],'
    'button:has([data-testid="AddBoxIcon"]),button:has([data-testid="EditIcon"]){display:none!important}'
)


def changes_something(method: str, path: str) -> bool:
    """Whether the dashboard's page asks for more than to look."""
    return method not in ("GET", "HEAD") and path.startswith("/api/")


@dataclass(frozen=True)
class DashboardPath:
    """An address that may be asked for; `study_id` is Optuna's number of the study that it names."""

    path: str
    study_id: int | None

    @property
    def is_page(self) -> bool:
        """Whether the answer is the document in which its pages are drawn."""
        return self.path.startswith("/dashboard")

    @property
    def is_importances(self) -> bool:
        """Whether it asks which parameters of a study mattered."""
        return self.path.endswith("/param_importances")

    @property
    def tells_of_studies(self) -> bool:
        """Whether the answer depends on which studies are the caller's."""
        return self.study_id is not None or self.path == STUDIES


def read_path(path: str) -> DashboardPath | None:
    """None for what is not reachable."""
    if named := _OF_A_STUDY.fullmatch(path):
        return DashboardPath(path, int(named["study"] or named["asked"] or named["listed"]))
    return DashboardPath(path, None) if _OF_NO_STUDY.fullmatch(path) else None
