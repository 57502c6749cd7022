"""A study of a service as an Optuna study in memory, copied over the API."""

import os
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from hpo_service.client import Client
from hpo_service.client.discovery import connect
from hpo_service.client.http import Json, study_path

_PAGE_SIZE = 500


def load_study(name: str, *, url: str | None = None, key: str | None = None) -> optuna.Study:
    """The study as it is now; what happens to the copy is not seen by the service.

    Paused trials are RUNNING, with the user attribute `hpo_state` "paused" and their losses as intermediate values.
    Without `url` the service is found as the command `hpo` finds it; without `key`, HPO_API_KEY is used.

    Raises:
        ApiProblem: there is no such study, or the key may not read it.
        ServiceUnreachable: nothing answers.
    """
    with connect() if url is None else Client(url, key or os.environ.get("HPO_API_KEY")) as client:
        pages = [client.get(f"{study_path(name)}/optuna", page_size=_PAGE_SIZE)]
        while token := pages[-1]["next_page_token"]:
            pages.append(client.get(f"{study_path(name)}/optuna", page_size=_PAGE_SIZE, page_token=token))
        copied_from = f"{client.url}{study_path(name)}"
    study = optuna.create_study(
        study_name=name, directions=pages[0]["directions"], storage=optuna.storages.InMemoryStorage()
    )
    study.add_trials(_trial(item) for page in pages for item in page["items"])
    study.set_user_attr("copied_from", copied_from)
    return study


def _trial(item: Json) -> FrozenTrial:
    distributions = {name: json_to_distribution(text) for name, text in item["distributions"].items()}
    started, finished = _local(item["started_at"]), _local(item["finished_at"])
    state = TrialState[item["state"]]
    return FrozenTrial(
        number=item["number"],
        trial_id=item["number"],
        state=state,
        value=None,
        values=None if item["values"] is None else [float(value) for value in item["values"]],
        # Optuna wants a beginning of every trial that is not waiting; one that failed at once has none of its own.
        datetime_start=started or finished,
        datetime_complete=finished,
        params={name: _as_stored(distributions[name], value) for name, value in item["params"].items()},
        distributions=distributions,
        user_attrs=item["user_attrs"],
        system_attrs={},
        intermediate_values={int(step): float(loss) for step, loss in item["intermediate_values"].items()},
    )


def _as_stored(distribution: optuna.distributions.BaseDistribution, value: Any) -> Any:  # noqa: ANN401
    """JSON does not tell 1 from 1.0; the distribution does."""
    return distribution.to_external_repr(distribution.to_internal_repr(value))


def _local(moment: str | None) -> datetime | None:
    """FrozenTrial holds naive local times."""
    return None if moment is None else datetime.fromisoformat(moment).astimezone().replace(tzinfo=None)
