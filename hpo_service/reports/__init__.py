"""A study as one document for people, as HTML or as Markdown. Pure: it is made from a `StudyReport` alone."""

from hpo_service.reports.contents import contents
from hpo_service.reports.html import html
from hpo_service.reports.markdown import markdown
from hpo_service.services.reports.facts import StudyReport

__all__ = ["render_html", "render_markdown"]


def render_html(report: StudyReport) -> str:
    """One page without scripts and without anything from elsewhere."""
    return html(report.study.name, contents(report))


def render_markdown(report: StudyReport) -> str:
    """The same words and tables; plots are left out, and the figures behind them are listed."""
    return markdown(report.study.name, contents(report))
