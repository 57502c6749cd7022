"""Asking for a delivery: whether it can be made is said before anything is done."""

from collections.abc import Iterable

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.auth.principals import Principal
from hpo_service.core.errors import Conflict
from hpo_service.services.deliveries.read import delivery_document
from hpo_service.services.deliveries.schemas import DeliverRequest, DeliveryDocument
from hpo_service.services.promotions.read import find as find_promotion
from hpo_service.services.promotions.read import require_effective
from hpo_service.services.trials.artifacts import away
from hpo_service.storage.promotion_tables import Delivery, Promotion
from hpo_service.storage.queries import attempts, audit, deliveries, promotions
from trainer.common.errors import SnapshotError
from trainer.snapshots.stores import Store
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG
from trainer.snapshots.stores.verify import open_files, verified_manifest
from trainer.spec import SnapshotRef, VariantName, needed_for

#: how many adapters that may be reused are looked at
_LOOKED_AT = 4


def prepare(
    sessions: sessionmaker[Session],
    project_id: int,
    name: str,
    version: int | None,
    request: DeliverRequest,
    store: Store,
) -> tuple[int, list[SnapshotRef]]:
    """The version that is meant, and the adapter that its delivery begins with, if one verifies.

    Raises:
        NotFound: no such promotion.
        Conflict: it waits for approval, or no worker can make the variant.
        Unavailable: the snapshot store does not answer.
    """
    with sessions.begin() as session:
        found = find_promotion(session, project_id, name, version)
        require_effective(found)
        _require_tools(session, request.quantize)
        row = found.row
        candidates = [] if request.retrain else _candidates(session, row)
        digests = row.facts["digests"]
    for ref in candidates[:_LOOKED_AT]:
        if _is_of(store, ref, digests["trial"]):
            return row.version, [ref]
    return row.version, []


def write(
    session: Session,
    caller: Principal,
    name: str,
    request: DeliverRequest,
    store: Store,
    version: int,
    offered: Iterable[SnapshotRef],
) -> DeliveryDocument:
    """The delivery, which the dispatcher is asked for."""
    promotion = promotions.find(session, caller.project_id, name, version)
    row = Delivery(
        project_id=caller.project_id,
        promotion_id=promotion.row.id,
        merge=request.merge or request.quantize is not None,
        quantize=request.quantize,
        retrain=request.retrain,
        offered=[ref.model_dump() for ref in offered],
        api_key_id=caller.key_id,
    )
    deliveries.add(session, row)
    audit.tell(session, f"deliveries/{row.id}", promotion=f"{name}@{version}")
    return delivery_document(deliveries.find(session, caller.project_id, row.id), store.location)


def _require_tools(session: Session, variant: VariantName | None) -> None:
    """Raises Conflict if there are workers and none can make the variant. Without workers nobody knows yet."""
    needed, installed = needed_for(variant), deliveries.ready_software(session)
    if needed is not None and installed and not any(needed in software for software in installed.values()):
        raise Conflict(
            f"{variant} needs {needed}, and none of the {len(installed)} workers ({', '.join(sorted(installed)[:5])}) "
            "has it: pip install 'hpo-service[gguf]' where they run and start them again, or deliver without quantize."
        )


def _candidates(session: Session, row: Promotion) -> list[SnapshotRef]:
    """Adapters that may be of the promoted trial: that of the last delivery, then the trial's own."""
    trained = [report["snapshot"] for report in deliveries.trained_adapters(session, row.project_id, row.id)]
    own = attempts.snapshots_of_trial(session, row.project_id, row.study_id, row.trial_number)
    return [SnapshotRef.model_validate(snapshot) for snapshot in (*trained[:1], *own)]


def _is_of(store: Store, ref: SnapshotRef, trial_digest: str) -> bool:
    """Whether the snapshot is the end of this very trial, and its adapter is whole. No transaction may be open."""
    try:
        manifest = verified_manifest(store, ref)
        if manifest.trial_digest != trial_digest or manifest.examples_seen < manifest.total_examples:
            return False
        for _, _, file in open_files(store, ref, (ADAPTER_CONFIG, ADAPTER)):
            file.close()
    except SnapshotError:
        return False
    except OSError as error:
        raise away(store, error) from error
    return True
