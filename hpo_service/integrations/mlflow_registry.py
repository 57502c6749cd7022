"""Promotions in MLflow's model registry: a version of a registered model each, and the alias `champion`."""

from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hpo_service.integrations.base import CHAMPION, Registration

_KEY = "hpo.key"
#: on the registered model: when the promotion was made that the alias was last moved for
_CHAMPION_SINCE = "hpo.champion_since"


class ModelRegistry:
    """Raises MlflowException or OSError."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def find(self, registration: Registration) -> ModelVersion | None:
        """The version, if it is there. Of several (the answer to a call came too late), the others are deleted."""
        filters = f"name = '{registration.name}' AND tags.`{_KEY}` = '{registration.key}'"
        found = sorted(self._client.search_model_versions(filters), key=lambda one: int(one.version))
        for twin in found[1:]:
            self._client.delete_model_version(registration.name, twin.version)
        return found[0] if found else None

    def make(self, registration: Registration, run_id: str, source: str, tags: Mapping[str, str]) -> ModelVersion:
        """A version, and its registered model where it is the first one."""
        try:
            self._client.create_registered_model(registration.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._client.create_model_version(
            registration.name,
            source,
            run_id,
            tags={**tags, _KEY: registration.key},
            await_creation_for=0,
        )

    def add_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Those that it does not have yet: who approved it."""
        for name, value in tags.items():
            if name not in version.tags:
                self._client.set_model_version_tag(version.name, version.version, name, value)

    def crown(self, registration: Registration, version: ModelVersion) -> None:
        """Move the alias, unless it was moved for a later promotion already; somebody may have moved it since."""
        tags = self._client.get_registered_model(registration.name).tags
        if tags.get(_CHAMPION_SINCE, "") < registration.promoted_since:
            self._client.set_registered_model_alias(registration.name, CHAMPION, version.version)
            self._client.set_registered_model_tag(registration.name, _CHAMPION_SINCE, registration.promoted_since)
