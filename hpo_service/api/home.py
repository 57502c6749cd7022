"""`/`: all studies on one page, for people. No script; the page looks again by itself."""

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from hpo_service.access import Scope
from hpo_service.api.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.scopes import needs
from hpo_service.markup import Markup, join, page, tag
from hpo_service.studies.documents import StudySummary
from hpo_service.studies.reading import list_studies

router = APIRouter(include_in_schema=False, dependencies=[needs(Scope.STUDY_READ)])

_SHOWN = 25
_REFRESH_SECONDS = 5
_COLUMNS = ("Study", "State", "Trials", "Best loss", "Spent", "Saved", "")


@router.get("/")
def show_home(session: SessionDependency, project: ProjectDependency) -> HTMLResponse:
    """The page."""
    studies = list_studies(session, project, page_size=_SHOWN, page_token=None).items
    links = tag(
        "nav",
        tag("a", "Dashboard", href="/dashboard"),
        tag("a", "API", href="/docs"),
        tag("a", "Search spaces", href="/v1/search-spaces"),
    )
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", column) for column in _COLUMNS))),
        tag("tbody", *(_row(study) for study in studies)),
    )
    nothing = tag("p", "No study yet. Start one with ", tag("code", "hpo study create -f study.yaml --watch"), ".")
    body = page("Studies", tag("h1", "Studies"), links, table if studies else nothing, refresh_seconds=_REFRESH_SECONDS)
    return HTMLResponse(body)


def _row(study: StudySummary) -> Markup:
    return tag(
        "tr",
        tag("td", tag("strong", tag("a", study.name, href=f"/v1/studies/{study.name}")), _note(study)),
        tag("td", tag("span", study.state, class_=f"state {study.state}")),
        tag("td", _trials(study), class_="number"),
        tag("td", _best(study), class_="number"),
        tag("td", _spent(study), class_="number"),
        tag("td", f"{study.savings.share:.0%}" if study.savings.examples else "", class_="number"),
        tag("td", _links(study)),
    )


def _note(study: StudySummary) -> Markup | None:
    text = study.message or (f"asked for: {', '.join(study.pending)}" if study.pending else "")
    return tag("div", text, class_="soft") if text else None


def _trials(study: StudySummary) -> Markup:
    counts = study.trials
    total = sum(counts.model_dump().values())
    standings = [f"{number} {name}" for name, number in counts.model_dump().items() if number]
    return join(f"{total} of {study.max_trials}", tag("div", ", ".join(standings), class_="soft"))


def _best(study: StudySummary) -> Markup:
    best = study.best
    if best is None:
        return Markup()
    parts = [f"trial {best.trial_number}"]
    if best.provisional:
        parts.append(f"provisional, after {best.examples} examples")
    if best.improvement is not None and best.improvement.baseline_trial != best.trial_number:
        parts.append(f"{best.improvement.relative:+.1%} better than the baseline".replace("+", ""))
    return join(f"{best.loss:.4f}", tag("div", ", ".join(parts), class_="soft"))


def _spent(study: StudySummary) -> Markup:
    spent = study.spent
    money = f", ${spent.usd:.2f}" if spent.usd else ""
    return join(_duration(spent.seconds), tag("div", f"{spent.examples} examples{money}", class_="soft"))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _links(study: StudySummary) -> Markup:
    links = []
    if study.dashboard is not None:
        links.append(tag("a", "Dashboard", href=study.dashboard))
        links.append(tag("a", "Trials", href=f"/v1/studies/{study.name}/trials"))
    if study.best is not None:
        links.append(tag("a", "Best config", href=f"/v1/studies/{study.name}/best/export"))
        links.append(tag("a", "Report", href=f"/v1/studies/{study.name}/report"))
    return tag("nav", *links)
