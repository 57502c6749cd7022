"""Deliveries as documents: where they stand by their jobs, and what these left."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.services.deliveries.schemas import (
    ArtifactDocument,
    DeliveryDocument,
    DeliveryState,
    FileDocument,
    FinalLossDocument,
    StepDocument,
)
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.services.trials.artifacts import Archive, away
from hpo_service.storage.queries import deliveries
from hpo_service.storage.queries.deliveries import Found, Step
from trainer.common.errors import SnapshotError
from trainer.snapshots.stores import Store
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG
from trainer.snapshots.stores.verify import open_files
from trainer.spec import Artifact, FileDigest, FinalAdapter, Outcome, VariantName, digest_of

_ADAPTER, _MERGED = "adapter", "merged"
_NAMES = {"train_final": "the training", "merge": "the merge", "quantize": "the quantization"}
#: what helps when a step failed with this outcome
_REMEDIES = {
    Outcome.OOM: "Give it a device with more memory, or promote a trial with a smaller micro-batch.",
    Outcome.DIVERGED: "Deliver without retrain, or promote another trial.",
    Outcome.DATA_ERROR: "Bring the rows back as they were when the trial was trained, or deliver without retrain.",
    Outcome.USER_ERROR: "Mend that and deliver again.",
    Outcome.INFRA_ERROR: "See the worker's log; deliver again, which begins with the adapter if it is there.",
    Outcome.LOST: "See `hpo worker list`; deliver again, which begins with the adapter if it is there.",
}


def list_deliveries(
    session: Session,
    project_id: int,
    location: str,
    *,
    name: str | None,
    version: int | None,
    page_size: int,
    page_token: str | None,
) -> Page[DeliveryDocument]:
    """The newest first, of one promotion or of all. `location` is that of the snapshot store."""
    before = None if page_token is None else read_token(page_token)
    rows = deliveries.newest_first(
        session, project_id, name=name, version=version, before_id=before, limit=page_size + 1
    )
    shown = rows[:page_size]
    return Page[DeliveryDocument](
        items=[delivery_document(found, location) for found in shown],
        next_page_token=str(shown[-1].row.id) if len(rows) > page_size else None,
    )


def find(session: Session, project_id: int, delivery_id: int) -> Found:
    """A delivery of the project. Raises NotFound."""
    return deliveries.find(session, project_id, delivery_id)


def delivery_document(found: Found, location: str) -> DeliveryDocument:
    """The delivery as the API shows it."""
    row, promotion = found.row, found.promotion
    state = state_of(row.merge, row.quantize, found.steps)
    ended = state in ("completed", "failed")
    return DeliveryDocument(
        id=row.id,
        promotion=f"{promotion.name}@{promotion.version}",
        study=found.study,
        state=state,
        message=_message(state, found.steps),
        merge=row.merge,
        quantize=cast("VariantName | None", row.quantize),
        retrain=row.retrain,
        reuses=bool(row.offered),
        steps=[_step(step) for step in found.steps],
        losses=_losses(promotion.facts["losses"], found.steps),
        artifacts=[artifact for step in found.steps if (artifact := _artifact(step, row.quantize, location))],
        seconds=sum(step.seconds for step in found.steps),
        cost_usd=sum(step.cost_usd for step in found.steps),
        delivered_by=found.delivered_by,
        created_at=row.created_at,
        finished_at=found.steps[-1].finished_at if ended else None,
    )


def state_of(merge: bool, quantize: str | None, steps: Sequence[Step]) -> DeliveryState:
    """Completed once the last step that was asked for is done; queued before the first one has begun."""
    last = "quantize" if quantize else "merge" if merge else "train_final"
    if any(step.state == "failed" for step in steps):
        return "failed"
    if any(step.kind == last and step.state == "done" for step in steps):
        return "completed"
    return "running" if any(step.attempt for step in steps) else "queued"


def open_artifact(found: Found, name: str, store: Store) -> Archive:
    """An artifact as a tar file, every file of it verified. No transaction should be open.

    Raises:
        NotFound: the delivery has no such artifact, or it is not whole any more.
        Unavailable: the snapshot store does not answer.
    """
    which = f"delivery {found.row.id}"
    for step in found.steps:
        if step.report is None or _name_of(step, found.row.quantize) != name:
            continue
        try:
            if step.kind == "train_final":
                adapter = FinalAdapter.model_validate(step.report)
                return Archive(open_files(store, adapter.snapshot, (ADAPTER_CONFIG, ADAPTER)), adapter.examples_seen)
            artifact = Artifact.model_validate(step.report)
            return Archive([_open(store, artifact, file) for file in sorted(artifact.files)], 0)
        except SnapshotError as error:
            raise NotFound(f"artifact {name} of {which} is not whole any more: {error}; deliver again.") from error
        except OSError as error:
            raise away(store, error) from error
    raise NotFound(f"{which} has no artifact {name[:40]!r} yet; see its `artifacts`.")


def _open(store: Store, artifact: Artifact, name: str) -> tuple[str, int, Any]:
    return name, artifact.files[name].size_bytes, store.open_file(artifact.path, artifact.files, name)


def _step(step: Step) -> StepDocument:
    return StepDocument(
        job=step.id,
        kind=cast("Any", step.kind),
        state=cast("Any", step.state),
        attempt=step.attempt,
        failures_by_cause=step.failures_by_cause,
        worker=step.worker,
        progress=step.progress if step.state == "running" else {},
        message="" if step.outcome in (None, "done") else step.message,
        seconds=step.seconds,
        cost_usd=step.cost_usd,
        finished_at=step.finished_at,
    )


def _message(state: DeliveryState, steps: Sequence[Step]) -> str:
    if state == "failed":
        step = next(step for step in steps if step.state == "failed")
        outcome = Outcome(step.outcome or Outcome.LOST)
        what = f"{_NAMES[step.kind]} (job {step.id}) failed with {outcome}: {step.message.rstrip('.')}."
        return f"{what} {_REMEDIES.get(outcome, '')}".strip()
    open_step = next((step for step in steps if step.state in ("waiting", "running")), None)
    if open_step is None:
        return "" if state == "completed" else "waits for the dispatcher"
    if open_step.state == "running":
        return f"{_NAMES[open_step.kind]} runs"
    waits = "a worker or its project's quota" if open_step.kind == "train_final" else "a worker"
    return f"{_NAMES[open_step.kind]} waits for {waits}"


def _losses(promoted: Mapping[str, Any], steps: Sequence[Step]) -> FinalLossDocument | None:
    report = next((step.report for step in steps if step.kind == "train_final" and step.state == "done"), None)
    if report is None:
        return None
    final = FinalAdapter.model_validate(report)
    return FinalLossDocument(
        promoted_loss=promoted["searched_loss"],
        loss=final.eval_loss,
        promoted_test_loss=promoted["test_loss"],
        test_loss=final.test_loss,
        examples=final.examples_seen,
        reused=final.resumed_from_examples >= final.examples_seen,
        device=final.device,
    )


def _name_of(step: Step, variant: str | None) -> str | None:
    return {"train_final": _ADAPTER, "merge": _MERGED}.get(step.kind, variant)


def _artifact(step: Step, variant: str | None, location: str) -> ArtifactDocument | None:
    name = _name_of(step, variant)
    if step.state != "done" or step.report is None or name is None:
        return None
    if step.kind == "train_final":
        final = FinalAdapter.model_validate(step.report)
        files = {file: final.files[file] for file in (ADAPTER_CONFIG, ADAPTER) if file in final.files}
        return _document(name, final.snapshot.path, location, files, digest_of(files), None)
    artifact = Artifact.model_validate(step.report)
    return _document(name, artifact.path, location, artifact.files, artifact.sha256, artifact)


def _document(
    name: str, path: str, location: str, files: Mapping[str, FileDigest], sha256: str, judged: Artifact | None
) -> ArtifactDocument:
    return ArtifactDocument(
        name=name,
        path=path,
        location=f"{location}/{path}",
        size_bytes=sum(file.size_bytes for file in files.values()),
        sha256=sha256,
        files=[
            FileDocument(name=file, size_bytes=files[file].size_bytes, sha256=files[file].sha256)
            for file in sorted(files)
        ],
        perplexity_before=None if judged is None else judged.perplexity_before,
        perplexity_after=None if judged is None else judged.perplexity_after,
        prompt=None if judged is None else judged.prompt,
        generated=None if judged is None else judged.generated_after,
        tool=None if judged is None else judged.tool,
        versions={} if judged is None else judged.versions,
    )
