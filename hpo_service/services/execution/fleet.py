"""What the workers are that a study could run on now."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hpo_service.spec.runnable import Fleet
from hpo_service.storage.queries import workers
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from trainer.spec import BITSANDBYTES, CUDA

_MOST_WORKERS = 1000


def known_fleet(session: Session) -> Fleet:
    """The workers that all projects share, as they introduced themselves; those that are set aside do not count.

    Those of an older version do not say everything.
    """
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    found = workers.newest_first(session, DEFAULT_PROJECT_ID, before_id=None, limit=_MOST_WORKERS, gone=False)
    rows = [row for row in found if row.state in (workers.READY, workers.DRAINING)]
    software: list[dict[str, Any]] = [row.software for row in rows]
    says = bool(rows) and all(CUDA in known for known in software)
    with_cuda = [known for known in software if known.get(CUDA, "none") != "none"]
    return Fleet(
        now=now,
        workers=len(rows),
        devices=len({place for row in rows for place in row.places}),
        models=tuple(dict.fromkeys(row.device for row in rows)),
        executor=rows[0].executor if rows else "",
        cuda=True if with_cuda else False if says else None,
        bitsandbytes=any(BITSANDBYTES in known for known in with_cuda) if with_cuda else None,
    )
