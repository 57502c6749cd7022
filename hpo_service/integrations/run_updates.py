"""From committed events to what a tracker is told of the runs that they are about."""

from collections.abc import Mapping, Sequence

from hpo_service.core.messages import EventKind
from hpo_service.integrations.base import Metric, RunState, RunUpdate
from hpo_service.integrations.runs import Reading, metrics_of, text_of, trial_run
from hpo_service.integrations.study_updates import study_updates
from hpo_service.storage.queries import optuna_reads
from hpo_service.storage.queries.optuna_reads import TrialRow
from hpo_service.storage.queries.outbox import OutboxEvent
from hpo_service.storage.tables import Study

LOSS = "eval_loss"
_TRIAL_STATES = {
    EventKind.SLICE_STARTED: ("running", RunState.RUNNING),
    EventKind.TRIAL_PAUSED: ("paused", None),
    EventKind.TRIAL_COMPLETED: ("complete", RunState.FINISHED),
    EventKind.TRIAL_PRUNED: ("pruned", RunState.KILLED),
    EventKind.TRIAL_FAILED: ("failed", RunState.FAILED),
}
_TRIAL_ENDS = frozenset({EventKind.TRIAL_COMPLETED, EventKind.TRIAL_PRUNED, EventKind.TRIAL_FAILED})
_TOLD = frozenset({EventKind.STUDY_STATE, EventKind.TRIAL_REPORTED, *_TRIAL_STATES})
#: what is known of a trial at its end, by the attribute that keeps it
_END_METRICS = {"cost_usd": "cost_usd", "seconds": "seconds", "examples": "examples_trained", "test_loss": "test_loss"}
_SAID = ("reason", "outcome", "message")


def read_updates(reading: Reading, events: Sequence[OutboxEvent]) -> list[RunUpdate]:
    """One update for each run that the events are about, in the order of the runs' last events.

    The session is not needed afterwards. A study's end brings the adapters of its `keep_best` best trials with it.
    """
    told: dict[tuple[int, int | None], list[OutboxEvent]] = {}
    for event in events:
        if event.study_id is not None and event.kind in _TOLD:
            key = (event.study_id, event.trial_number)
            told[key] = [*told.pop(key, []), event]
    ended = _ended_trials(reading, told)
    updates = list[RunUpdate]()
    for (study_id, number), history in told.items():
        study = reading.studies[study_id]
        if number is None:
            updates += study_updates(reading, study, history)
        else:
            updates.append(_trial_update(reading, study, number, history, ended.get((study_id, number))))
    return updates


def _trial_update(
    reading: Reading, study: Study, number: int, history: Sequence[OutboxEvent], row: TrialRow | None
) -> RunUpdate:
    parameters: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics = list[Metric]()
    state, ended_at = None, None
    for event in history:
        kind = EventKind(event.kind)
        if kind is EventKind.SLICE_STARTED:
            parameters = {name: text_of(value) for name, value in event.payload["parameters"].items()}
        elif kind is EventKind.TRIAL_REPORTED:
            metrics += _rung_metrics(event)
        if kind in _TRIAL_STATES:
            tags["hpo.state"], entered = _TRIAL_STATES[kind]
            state = entered or state
            tags |= {f"hpo.{name}": str(event.payload[name]) for name in _SAID if event.payload.get(name)}
        if kind in _TRIAL_ENDS:
            ended_at = event.created_at
    if row is not None and ended_at is not None:
        attrs, examples = row.user_attrs, max(row.intermediate_values, default=0)
        known = {told: attrs.get(name) for name, told in _END_METRICS.items()}
        metrics += metrics_of(known, examples, history[-1])
        tags |= {"hpo.baseline": "true"} if attrs.get("baseline") is True else {}
    return RunUpdate(
        run=trial_run(reading, study, number, history[0].created_at),
        parameters=parameters,
        metrics=metrics,
        tags=tags,
        state=state,
        ended_at=ended_at,
    )


def _rung_metrics(event: OutboxEvent) -> list[Metric]:
    payload = event.payload
    return metrics_of({LOSS: payload["loss"], "slice_seconds": payload["seconds"]}, payload["examples"], event)


def _ended_trials(
    reading: Reading, told: Mapping[tuple[int, int | None], Sequence[OutboxEvent]]
) -> dict[tuple[int, int], TrialRow]:
    """The rows of trials that ended, by study and number; those of deleted studies are gone."""
    wanted: dict[int, list[int]] = {}
    for (study_id, number), history in told.items():
        if number is not None and any(event.kind in _TRIAL_ENDS for event in history):
            wanted.setdefault(study_id, []).append(number)
    return {
        (study_id, row.number): row
        for study_id, numbers in wanted.items()
        if (optuna_id := reading.studies[study_id].optuna_study_id) is not None
        for row in optuna_reads.read_trials_called(reading.session.connection(), optuna_id, numbers)
    }
