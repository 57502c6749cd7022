"""What a study is run for: its best parameters."""

from sqlalchemy.orm import Session

from hpo_service import exporters
from hpo_service.core.errors import NotFound
from hpo_service.exporters.document import StudyFacts
from hpo_service.search.best import Best
from hpo_service.services.common.exported_values import ExportedValuesDocument, exported_values
from hpo_service.services.studies.schemas import BestDocument
from hpo_service.services.studies.summaries import read_leaders
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import studies
from hpo_service.storage.tables import Study
from trainer.spec import TrialFile


def show_best(session: Session, project_id: int, name: str) -> BestDocument:
    """The best trial so far. Raises NotFound if no trial has reached a rung."""
    best = read_leaders(session, studies.find(session, project_id, name)).best
    if best is None:
        raise _nothing_yet(name)
    return best


def export_best(
    session: Session, project_id: int, name: str, format_name: str, *, strict: bool = False
) -> exporters.Rendered:
    """The best parameters as a file.

    Raises:
        NotFound: no such study, or no trial has reached a rung.
        InvalidRequest: no such format.
        NotExpressible: `strict`, and the format has no key for something that matters.
    """
    return exporters.render(format_name, _best_document(session, project_id, name), strict=strict)


def best_values(
    session: Session, project_id: int, name: str, format_name: str, *, strict: bool = False
) -> ExportedValuesDocument:
    """The values of such a file one by one. Raises as `export_best`, and InvalidRequest if it cannot be taken apart."""
    return exported_values(format_name, _best_document(session, project_id, name), strict=strict)


def find_best(session: Session, study: Study) -> Best | None:
    """The best trial so far; None if no trial has reached a rung."""
    return read_leaders(session, study).winner


def best_file(session: Session, study: Study, best: Best) -> TrialFile:
    """The parameters of the best trial, with where they come from."""
    resolved = ResolvedStudy.model_validate(study.resolved)
    rows = study.data_fingerprints or {}
    about = StudyFacts(
        name=study.name,
        project=studies.project_name(session, study.project_id),
        strategy=resolved.search.strategy,
        seed=resolved.search.seed,
        train_digest=rows.get("train"),
        eval_digest=rows.get("eval"),
    )
    return exporters.best_document(about, best, resolved)


def _best_document(session: Session, project_id: int, name: str) -> TrialFile:
    study = studies.find(session, project_id, name)
    best = find_best(session, study)
    if best is None:
        raise _nothing_yet(name)
    return best_file(session, study, best)


def _nothing_yet(name: str) -> NotFound:
    return NotFound(f"no trial of study {name!r} has reached a rung yet; ask again later.")
