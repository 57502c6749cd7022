"""Create, check and clone studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core import study_rules
from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import StudyState
from hpo_service.services.access import quotas
from hpo_service.services.data import checks
from hpo_service.services.execution.fleet import known_fleet
from hpo_service.services.studies.examination import examine
from hpo_service.services.studies.read import study_document
from hpo_service.services.studies.schemas import CreatedStudyDocument
from hpo_service.services.studies.spec_schemas import ValidationReport
from hpo_service.services.studies.warm_start import past_documents, with_past
from hpo_service.spec import ResolvedStudy, StudySpec, estimate
from hpo_service.storage.queries import attempts, audit, studies


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A spec that was checked against the files it names and the workers there are."""

    written: dict[str, Any]
    spec: StudySpec
    resolved: ResolvedStudy
    check: checks.Check | None
    warnings: tuple[str, ...]


def prepare(sessions: sessionmaker[Session], document: Mapping[str, Any], roots: Sequence[Path]) -> Prepared:
    """Check everything that can be checked before a transaction is open; may read large files. Raises InvalidSpec."""
    with sessions.begin() as session:
        fleet = known_fleet(session)
    examined = examine(document, roots, fleet)
    resolved = examined.resolved
    return Prepared(
        written=dict(document),
        spec=examined.spec,
        resolved=resolved,
        check=checks.needed(resolved, examined.unknown_targets),
        warnings=(*estimate(resolved).warnings, *examined.warnings),
    )


def create(session: Session, project_id: int, prepared: Prepared) -> CreatedStudyDocument:
    """Write the study and ask the dispatcher to open it.

    Raises:
        Conflict: the name is taken.
        QuotaExceeded: the project may not have another study.
        InvalidSpec: it names an earlier study that does not exist or has no results.
    """
    quotas.require_room(session, project_id)
    resolved = with_past(session, project_id, prepared.resolved)
    study = studies.add(
        session,
        project_id,
        name=prepared.spec.metadata.name,
        spec=prepared.written,
        resolved=resolved.model_dump(mode="json"),
        state=str(StudyState.QUEUED),
    )
    if prepared.check is not None:
        check = checks.ask(session, project_id, prepared.check, study.id)
        study.check_job_id = check.job
        study.message = checks.WAITING.format(job=check.job) if check.state == "pending" else ""
        session.flush()
    studies.add_intent(session, study, IntentKind.CREATE, {})
    audit.tell(session, f"studies/{study.name}")
    document = study_document(session, study)
    return CreatedStudyDocument(**dict(document), warnings=list(prepared.warnings))


def report(
    session: Session, project_id: int, prepared: Prepared, usd_per_gpu_hour: float, caller: int
) -> ValidationReport:
    """What the study would be, for the key `caller`."""
    resolved, name = with_past(session, project_id, prepared.resolved), prepared.spec.metadata.name
    expectation = estimate(resolved)
    rate = attempts.seconds_per_example(session, project_id, resolved.model.path)
    seconds = None if rate is None else rate * expectation.expected_examples
    gpus = resolved.resources.gpus_per_trial
    warnings = list(prepared.warnings)
    if studies.is_taken(session, project_id, name):
        warnings.append(f"a study named {name!r} exists already; this one needs another name.")
    if (refusal := quotas.refusal(session, project_id)) is not None:
        warnings.append(refusal)
    check = checks.OFF
    if prepared.check is not None:
        check = checks.ask(session, project_id, prepared.check, caller=caller)
    return ValidationReport(
        name=name,
        space=resolved.space,
        dimensions=expectation.dimensions,
        trials=expectation.trials,
        slices=expectation.slices,
        ladder=list(expectation.ladder),
        train_rows=resolved.train_rows,
        eval_rows=resolved.eval_rows,
        expected_examples=expectation.expected_examples,
        full_examples=expectation.full_examples,
        expected_share=expectation.expected_share,
        expected_seconds=seconds,
        expected_usd=None
        if not seconds or not usd_per_gpu_hour
        else study_rules.cost_usd(seconds, gpus, usd_per_gpu_hour),
        confirmation_examples=expectation.confirmation_examples,
        confirmation_runs=expectation.confirmation_runs,
        baseline=resolved.baseline,
        past=past_documents([known.model_dump() for known in resolved.past], {}),
        data_check=check,
        warnings=warnings,
        resolved=resolved.model_dump(mode="json", exclude={"past"}),
    )


def cloned_spec(
    session: Session, project_id: int, source: str, name: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The spec of `source` with `changes` merged into it, under a new name. Raises NotFound."""
    written = dict(studies.find(session, project_id, source).spec)
    return merge_patch(merge_patch(written, changes), {"metadata": {"name": name}})


def merge_patch(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396: objects are merged, null removes, everything else replaces."""
    merged = dict(document)
    for key, value in patch.items():
        under = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = merge_patch(under if isinstance(under, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged
