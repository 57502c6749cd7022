"""All trials of a study see the same rows: those of its first result."""

from sqlalchemy.orm import Session

from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.storage.queries import dispatch
from trainer.spec import Outcome, SliceResult


def checked(study: LiveStudy, result: SliceResult) -> SliceResult:
    """The result, as a data error without loss and snapshot if it is of other rows than those of the study.

    A worker refuses other rows by itself once it is told which they are; slices that ran before the first result were
    not told.
    """
    known, found = study.data_fingerprints, result.data_fingerprints
    sentence = None if known is None or found is None else known.changed(found, study.resolved.data)
    if sentence is None:
        return result
    nothing = {"snapshot": None, "eval_loss": None, "eval_tokens": None, "fold_losses": (), "test_loss": None}
    return result.model_copy(update={**nothing, "outcome": Outcome.DATA_ERROR, "message": sentence})


def keep(session: Session, study: LiveStudy, result: SliceResult) -> None:
    """Remember which rows the study is about, if this is the first result that knows.

    Test rows are seen by a confirmation only, whose other rows are known from its search.
    """
    known, found = study.data_fingerprints, result.data_fingerprints
    if found is not None and (known is None or (known.test is None and found.test is not None)):
        study.data_fingerprints = found
        dispatch.update_study(session, study.id, data_fingerprints=found.model_dump())
