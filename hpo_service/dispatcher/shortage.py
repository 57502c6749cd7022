"""Studies that wait for more devices than there are now: they say so, and go on when the devices come."""

from collections.abc import Sequence

from hpo_service.dispatcher.memory import LiveStudy
from hpo_service.executors.base import Executor

_WAITS = "waits for devices: "


def messages(executor: Executor, studies: Sequence[LiveStudy]) -> list[tuple[LiveStudy, str]]:
    """Studies whose message has to change, each with its new one; nothing while it is not known what there is."""
    present = executor.devices_present
    if present is None:
        return []
    wanted = [(study, _message(executor, study, present)) for study in studies]
    return [
        (study, message)
        for study, message in wanted
        if message != study.message and (message or study.message.startswith(_WAITS))
    ]


def _message(executor: Executor, study: LiveStudy, present: int) -> str:
    """Empty if a trial of the study fits, or one is running."""
    ranks = study.resolved.training.ranks
    if ranks <= present or study.running():
        return ""
    return (
        f"{_WAITS}resources.gpus_per_trial is {ranks} and the {executor.name} executor has {present} device(s) now; "
        f"it goes on when there are more ({executor.devices_setting}), or cancel it and clone it with fewer"
    )
