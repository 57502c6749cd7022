"""What a report says, in its order."""

from hpo_service.reports.blocks import Section
from hpo_service.reports.sections.course import course
from hpo_service.reports.sections.origin import data_quality, environment, specification
from hpo_service.reports.sections.recommendation import recommendation
from hpo_service.reports.sections.search import search
from hpo_service.reports.sections.winner import parameters, winner
from hpo_service.services.reports.facts import StudyReport


def contents(report: StudyReport) -> list[Section]:
    """All sections; those that a study has nothing for say so."""
    return [
        recommendation(report),
        winner(report),
        *parameters(report),
        search(report),
        course(report),
        data_quality(report),
        specification(report),
        environment(report),
    ]
