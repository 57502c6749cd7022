"""What the API writes for the dispatcher to do, and what the dispatcher writes for everyone to read."""

from enum import StrEnum


class IntentKind(StrEnum):
    """Payload keys in brackets."""

    CREATE = "create"  #: open the study []
    PAUSE = "pause"  #: []
    RESUME = "resume"  #: []
    STOP = "stop"  #: let running slices finish, keep the best []
    CANCEL = "cancel"  #: end at the next step boundary []
    ENQUEUE = "enqueue"  #: run this point next [`parameters`: real values, may be partial]
    EXTEND = "extend"  #: budget or ranges grew [`resolved`: the new ResolvedStudy]
    DELETE = "delete"  #: forget an ended study and its snapshots []
    WORKER_DRAIN = "worker_drain"  #: bound to no study, like the next two [`worker`: its name, `reason`]
    WORKER_QUARANTINE = "worker_quarantine"  #: [`worker`, `reason`]
    WORKER_RELEASE = "worker_release"  #: [`worker`]
    TELL_PROMOTION = "tell_promotion"  #: bound to no study [`event`: its kind, `study_id`, `trial`, `payload`]
    CHECK_PATHS = "check_paths"  #: like the next one
    DELIVER = "deliver"  #: bound to no study: begin the first job of a delivery [`delivery_id`]
    CHECK_DATA = "check_data"  #: bound to no study [`job_id`, `study_id` that asks or null, `fingerprint`, `task`]


class EventKind(StrEnum):
    """Payload keys in brackets."""

    STUDY_STATE = "study.state"  #: [`state`, `message`]
    BUDGET_NEARLY_SPENT = "budget.nearly_spent"  #: 80 % of examples, GPU-hours or USD [`message`]
    STUDY_CHANGED = "study.changed"  #: budget or ranges were extended [`budget`, `space`]
    STUDY_DTYPE = "study.dtype"  #: `model.dtype: auto` was resolved [`dtype`, `device`, `message`]
    INTENT_REFUSED = "intent.refused"  #: [`intent`, `error`]
    TRIAL_QUEUED = "trial.queued"  #: an enqueued point waits for a slot [`parameters`]
    SLICE_STARTED = "slice.started"  #: [`slice_id`, `attempt`, `until_examples`, `reason`, `parameters`, `worker`,
    #: and for the first attempt the `decision_number`, the `numbers` behind it, and the `ask_seconds` it took]
    SLICE_PROGRESS = "slice.progress"  #: at a checkpoint only [`slice_id`, `attempt`, `examples_seen`]
    SLICE_RETRIED = "slice.retried"  #: [`slice_id`, `attempt`, `outcome`, `cause`, `message`]
    SNAPSHOT_DISCARDED = "snapshot.discarded"  #: did not verify [`snapshots`, `resumed_from_examples`]
    TRIAL_REPORTED = "trial.reported"  #: [`examples`, `loss`, `seconds`]
    TRIAL_PAUSED = "trial.paused"  #: [`reason`]
    TRIAL_PRUNED = "trial.pruned"  #: [`reason`]
    TRIAL_COMPLETED = "trial.completed"  #: [`loss`]
    TRIAL_FAILED = "trial.failed"  #: [`outcome`, `message`]
    TRIAL_NOTICE = "trial.notice"  #: something worth knowing of a slice [`kind`, `step`, `values`, `message`]
    DATA_CHECKED = "data.checked"  #: before the first slice [`job`, `verdict`, `findings` that warn or fail]
    PROMOTION_MADE = "promotion.made"  #: [`name`, `version`, `repeats`, `effective`, `message`]
    PROMOTION_APPROVED = "promotion.approved"  #: as before
    DELIVERY_STARTED = "delivery.started"  #: of the promotion's study [`delivery`, `promotion`, `merge`, `quantize`]
    DELIVERY_STEP = "delivery.step"  #: one of its jobs is done [`delivery`, `promotion`, `job`, `kind`, `seconds`]
    DELIVERY_COMPLETED = "delivery.completed"  #: [`delivery`, `promotion`]
    DELIVERY_FAILED = "delivery.failed"  #: [`delivery`, `promotion`, `job`, `kind`, `outcome`, `message`]
    WORKER_LOST = "worker.lost"  #: of the service, and of each study with a slice on it [`worker`, `cause`, `message`]
    WORKER_QUARANTINED = "worker.quarantined"  #: as before [`worker`, `places`, `message`]
    # Of the service only, which has no study:
    WORKER_ENDED = "worker.ended"  #: on purpose, so nothing went wrong [`worker`, `cause`, `message`]
    WORKER_DRAINING = "worker.draining"  #: [`worker`, `message`]
    WORKER_RELEASED = "worker.released"  #: [`worker`, `places`]
    DISPATCHER_TOOK_OVER = "dispatcher.took_over"  #: [`epoch`, `holder`, `attempts_kept`, `attempts_lost`]
    WORKER_NOT_REPEATABLE = "worker.not_repeatable"  #: a step taken twice gave other bits [`worker`, `message`]
    WORKER_REFUSED = "worker.refused"  #: of the service: does not see the snapshot store [`worker`, `node`, `message`]
