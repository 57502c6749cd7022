"""Studies that wait for more devices than there are now: they say so, and go on when the devices come."""

from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.executors.base import Executor

WAITS = "waits for devices: "


def message(executor: Executor, study: LiveStudy) -> str:
    """What the study waits for. Empty if a trial of it fits, or one is running.

    While it is not known what there is, what was said before stays.
    """
    ranks, present = study.resolved.training.ranks, executor.devices_present
    if present is None:
        return study.message if study.message.startswith(WAITS) else ""
    if ranks <= present or study.running():
        return ""
    return (
        f"{WAITS}resources.gpus_per_trial is {ranks} and the {executor.name} executor has {present} device(s) now; "
        f"it goes on when there are more ({executor.devices_setting}), or cancel it and clone it with fewer"
    )
