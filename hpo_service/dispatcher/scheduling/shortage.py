"""Studies that wait for more or other devices than there are now: they say so, and go on when the devices come."""

from hpo_service.dispatcher.scheduling import study_dtype
from hpo_service.dispatcher.state.assignments import Fleet
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.executors.base import Executor

WAITS = "waits for devices: "


def message(executor: Executor, fleet: Fleet, study: LiveStudy) -> str:
    """What the study waits for. Empty if a trial of it fits, or one is running.

    While it is not known what there is, what was said before stays.
    """
    ranks, present = study.resolved.training.ranks, executor.devices_present
    if present is None:
        return study.message if study.message.startswith(WAITS) else ""
    if study.running():
        return ""
    if ranks <= present:
        return _of_another_dtype(fleet, study)
    return (
        f"{WAITS}resources.gpus_per_trial is {ranks} and the {executor.name} executor has {present} device(s) now; "
        f"it goes on when there are more ({executor.devices_setting}), or cancel it and clone it with fewer"
    )


def _of_another_dtype(fleet: Fleet, study: LiveStudy) -> str:
    """Said if there are workers and none may have its slices."""
    if not fleet.ready or len(study_dtype.unfit(fleet, study)) < len(fleet.ready):
        return ""
    model, device = study.resolved.model, study.resolved.dtype_device
    return (
        f"{WAITS}its trials are computed in {model.dtype}, as auto is on {device} where it began, and auto is another "
        f"dtype on all {len(fleet.ready)} worker(s) there are; it goes on when there is such a device again, or clone "
        f"it with model.dtype {model.dtype} to have it on any"
    )
