"""Best parameters as configurations that production tools read."""

from collections.abc import Mapping
from types import MappingProxyType

from hpo_service.core.errors import InvalidRequest, NotExpressible
from hpo_service.exporters.axolotl import render_axolotl
from hpo_service.exporters.base import Render, Rendered
from hpo_service.exporters.canonical import render_json, render_yaml
from hpo_service.exporters.deepspeed import render_deepspeed
from hpo_service.exporters.document import best_document
from hpo_service.exporters.env import render_env
from hpo_service.exporters.helm import render_helm
from hpo_service.exporters.hf import render_hf
from hpo_service.exporters.hydra import render_hydra
from hpo_service.exporters.kustomize import render_kustomize
from hpo_service.exporters.llamafactory import render_llamafactory
from hpo_service.exporters.peft import render_peft
from hpo_service.exporters.trl import render_trl
from trainer.spec import TrialFile

FORMATS: Mapping[str, Render] = MappingProxyType(
    {
        "yaml": render_yaml,
        "json": render_json,
        "env": render_env,
        "hf": render_hf,
        "peft": render_peft,
        "trl": render_trl,
        "axolotl": render_axolotl,
        "llamafactory": render_llamafactory,
        "deepspeed": render_deepspeed,
        "helm": render_helm,
        "kustomize": render_kustomize,
        "hydra": render_hydra,
    }
)

__all__ = ["FORMATS", "Render", "Rendered", "best_document", "render"]


def render(format: str, document: TrialFile, *, strict: bool = False) -> Rendered:
    """The document in one of `FORMATS`.

    Raises:
        InvalidRequest: there is no such format.
        NotExpressible: `strict`, and the format has no key for something that matters.
    """
    if format not in FORMATS:
        raise InvalidRequest(f"there is no export format {format!r}; use one of {', '.join(FORMATS)}.")
    rendered = FORMATS[format](document)
    if strict and rendered.dropped:
        raise NotExpressible(
            f"format {format} has no key for {', '.join(rendered.dropped)}; leave out strict to go without, "
            "or use another format."
        )
    return rendered
