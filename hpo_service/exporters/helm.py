"""Values for a Helm chart: `helm install -f FILE`, or merged into a values file under a key of the chart's."""

from hpo_service.exporters.base import Rendered
from hpo_service.exporters.header import header
from hpo_service.exporters.values import NESTED, nested_values
from hpo_service.exporters.yaml_text import yaml_text
from trainer.spec import TrialFile

_USE = "In a template: {{ toYaml .Values.parameters }}; a bare {{ number }} may be printed with an exponent"


def render_helm(document: TrialFile) -> Rendered:
    """Everything, under the document's own names."""
    body = nested_values(document)
    return Rendered(
        text=header(document, _USE) + yaml_text(body),
        values=NESTED.values(body),
        media_type="application/yaml",
        file_name="values-best.yaml",
    )
