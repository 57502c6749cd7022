"""From promotions that became events to the versions of models that a tracker is told of."""

from collections.abc import Sequence

from hpo_service.core.messages import EventKind
from hpo_service.integrations.base import DEFAULT_PROJECT, Registration
from hpo_service.integrations.run_files import adapter_writer
from hpo_service.integrations.runs import Reading, trial_run
from hpo_service.services.promotions.schemas import DigestsDocument, PromotionFacts
from hpo_service.storage.queries import attempts, promotions
from hpo_service.storage.queries.outbox import OutboxEvent
from hpo_service.storage.queries.promotions import Found
from trainer.spec import SnapshotRef

_TOLD = frozenset({EventKind.PROMOTION_MADE, EventKind.PROMOTION_APPROVED})


def read_registrations(reading: Reading, events: Sequence[OutboxEvent]) -> list[Registration]:
    """One for each promotion that was made or approved, in order. The session is not needed afterwards."""
    return [_registration(reading, event) for event in events if event.kind in _TOLD]


def _registration(reading: Reading, event: OutboxEvent) -> Registration:
    told = event.payload
    made = promotions.find(reading.session, event.project_id, told["name"], told["version"])
    repeats = told["repeats"]
    found = made if repeats is None else promotions.find(reading.session, event.project_id, told["name"], repeats)
    row, study = found.row, reading.studies[found.row.study_id]
    digests = PromotionFacts.model_validate(row.facts).digests
    project = reading.projects[event.project_id]
    run = trial_run(reading, study, row.trial_number, row.created_at)
    known = attempts.snapshots_of_trial(reading.session, row.project_id, row.study_id, row.trial_number)
    snapshots = [SnapshotRef.model_validate(one) for one in known if one["digest"] == digests.snapshot]
    return Registration(
        key=f"{reading.outbox}/{row.name}@{row.version}/{digests.snapshot}",
        # Names of promotions have no space.
        name=row.name if project == DEFAULT_PROJECT else f"{project} {row.name}",
        promoted_at=made.row.created_at,
        run=run,
        tags=_tags(found, project, digests),
        champion=told["effective"],
        write_files=adapter_writer(reading.store, snapshots, run.key),
    )


def _tags(found: Found, project: str, digests: DigestsDocument) -> dict[str, str]:
    row = found.row
    tags = {
        "hpo.promotion": f"{row.name}@{row.version}",
        "hpo.project": project,
        "hpo.study": found.study,
        "hpo.trial": str(row.trial_number),
        "hpo.promoted_by": found.promoted_by,
        "hpo.approved_by": found.approved_by or "",
        "hpo.note": row.note,
    }
    digested = {f"hpo.digest.{name}": digest for name, digest in digests.model_dump().items() if digest}
    return {name: value for name, value in tags.items() if value} | digested
