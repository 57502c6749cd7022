"""A Kustomize component that adds a ConfigMap: `components: [FOLDER]` in an overlay's kustomization.yaml.

Kustomize gives the map a name with a hash of its content, so that pods which use it restart with new parameters.
"""

from hpo_service.exporters.base import Rendered
from hpo_service.exporters.canonical import render_yaml
from hpo_service.exporters.env import variables
from hpo_service.exporters.header import header
from hpo_service.exporters.yaml_text import yaml_text
from trainer.spec import TrialFile

CONFIG_MAP = "best-parameters"
FILE = "best.yaml"
_USE = f"ConfigMap {CONFIG_MAP}: every value as a variable (envFrom), and {FILE} for python -m trainer run"


def render_kustomize(document: TrialFile) -> Rendered:
    """The variables of the format `env`, and the document of the format `yaml`, in which everything is."""
    values, _ = variables(document)
    literals = [f"{name}={value}" for name, value in values.items()]
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "configMapGenerator": [
            {"name": CONFIG_MAP, "literals": [*literals, f"{FILE}={render_yaml(document).text}"]},
        ],
    }
    return Rendered(
        text=header(document, _USE) + yaml_text(body), media_type="application/yaml", file_name="kustomization.yaml"
    )
