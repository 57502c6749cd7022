"""The model registry's part of MLflow's REST API, as far as we call it. Versions are made as often as one asks."""

import re
from typing import Any

Json = dict[str, Any]
_KEY_FILTER = re.compile(r"name = '(.+)' AND tags\.`hpo\.key` = '(.+)'")


class Refusal(Exception):
    """An answer with an error code of MLflow's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error_code": code, "message": message}


class RegistryStub:
    """Registered models by name: `tags`, `aliases` (of version numbers) and `versions`."""

    def __init__(self) -> None:
        self.models: dict[str, Json] = {}

    def _registered_models_create(self, body: Json) -> Json:
        if body["name"] in self.models:
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", "there is one")
        self.models[body["name"]] = {"tags": {}, "aliases": {}, "versions": []}
        return {"registered_model": {"name": body["name"]}}

    def _registered_models_get(self, body: Json) -> Json:
        tags = self._model(body)["tags"]
        return {"registered_model": {"name": body["name"], "tags": _listed(tags)}}

    def _registered_models_set_tag(self, body: Json) -> Json:
        self._model(body)["tags"][body["key"]] = body["value"]
        return {}

    def _registered_models_alias(self, body: Json) -> Json:
        self._model(body)["aliases"][body["alias"]] = body["version"]
        return {}

    def _model_versions_create(self, body: Json) -> Json:
        versions: list[Json] = self._model(body)["versions"]
        made = {name: body[name] for name in ("name", "source", "run_id")}
        tags = {one["key"]: one["value"] for one in body["tags"]}
        versions.append({**made, "version": str(len(versions) + 1), "tags": tags, "status": "READY"})
        return {"model_version": _shown(versions[-1])}

    def _model_versions_search(self, body: Json) -> Json:
        wanted = _KEY_FILTER.fullmatch(body["filter"])
        assert wanted
        versions = self.models.get(wanted[1], {"versions": []})["versions"]
        return {"model_versions": [_shown(one) for one in versions if one["tags"]["hpo.key"] == wanted[2]]}

    def _model_versions_set_tag(self, body: Json) -> Json:
        (found,) = [one for one in self._model(body)["versions"] if one["version"] == body["version"]]
        found["tags"][body["key"]] = body["value"]
        return {}

    def _model_versions_delete(self, body: Json) -> Json:
        model = self._model(body)
        model["versions"] = [one for one in model["versions"] if one["version"] != body["version"]]
        return {}

    def _model(self, body: Json) -> Json:
        if body["name"] not in self.models:
            raise Refusal(404, "RESOURCE_DOES_NOT_EXIST", "no such model")
        found: Json = self.models[body["name"]]
        return found


def _listed(tags: dict[str, str]) -> list[Json]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _shown(version: Json) -> Json:
    return {**version, "tags": _listed(version["tags"])}
