"""The Dockerfile by hadolint, compose.yaml by Docker Compose's own parser; what both promise of every container."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.unit.deploy.conftest import Tools

TAGGED = re.compile(r"[a-z0-9./-]+:v?\d+(\.\d+)+[\w.-]*(@sha256:[0-9a-f]{64})?")
ONCE = {"migrate", "owner"}
#: what needs a user of its own: compose.yaml says why
ROOT = {"postgres", "owner"}


@pytest.fixture(scope="module")
def services(tools: Tools) -> dict[str, Any]:
    """As Compose understands them, with its optional parts."""
    said = tools.run("docker-compose", "-f", "compose.yaml", "--profile", "mlflow", "config")
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = yaml.safe_load(said.stdout)["services"]
    return found


def test_hadolint(tools: Tools) -> None:
    said = tools.run("hadolint", "Dockerfile")
    assert (said.returncode, said.stdout) == (0, "")


def test_base_images_are_pinned(deploy: Path) -> None:
    images = re.findall(r"^ARG \w+_IMAGE=(\S+)", (deploy / "Dockerfile").read_text(), re.MULTILINE)
    images += re.findall(
        r"^    image: \$\{\w+:-(postgres\S+|prom/\S+|grafana/\S+)\}",
        (deploy / "compose.yaml").read_text(),
        re.MULTILINE,
    )
    assert len(images) == 6
    assert all(TAGGED.fullmatch(image) for image in images), images


def test_images_run_as_nobody_in_particular(deploy: Path) -> None:
    stages = re.split(r"^FROM ", (deploy / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    named = {stage.split("\n", 1)[0].split(" AS ")[1]: stage for stage in stages}
    for base in ("runtime", "worker-zero"):
        assert named[base].rindex("\nUSER 10001:10001") > named[base].rindex("\nRUN ")
    for target in ("api", "worker", "mlflow"):
        assert named[target].startswith("runtime AS")
        assert "\nUSER" not in named[target]


def test_only_what_images_need_is_sent_to_the_builder(deploy: Path) -> None:
    ignored = (deploy.parent / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = re.findall(r"^COPY (?:--chmod=\d+ )?(deploy/\S+)", (deploy / "Dockerfile").read_text(), re.MULTILINE)
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert all(any(path.startswith(f"{folder}/") for folder in kept) for path in copied)
    assert all((deploy.parent / path).exists() for path in (*copied, *kept))


def test_compose_has_every_part(services: dict[str, Any], tools: Tools) -> None:
    parts = {"postgres", "api", "dispatcher", "ray-head", "worker", "outbox", "mlflow", "prometheus", "grafana"}
    assert set(services) == parts | ONCE
    cpu = tools.run("docker-compose", "-f", "compose.yaml", "-f", "compose.cpu.yaml", "config")
    worker = yaml.safe_load(cpu.stdout)["services"]["worker"]
    assert "reservations" not in worker["deploy"]["resources"]
    assert worker["environment"]["RAY_SLOTS"] == "1"
    notices = tools.run(
        *("docker-compose", "-f", "compose.yaml", "-f", "compose.notices.yaml", "--profile", "notices", "config")
    )
    outbox = yaml.safe_load(notices.stdout)["services"]["outbox"]
    assert {secret["source"] for secret in outbox["secrets"]} == {
        *("hpo_database_url", "hpo_webhook_url", "hpo_webhook_secret", "hpo_slack_url")
    }


def test_compose_lets_people_log_in(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("docker-compose", "-f", "compose.yaml", "-f", "compose.oidc.yaml", "config")
    assert "HPO_OIDC_ISSUER" in tools.run(*command).stderr
    monkeypatch.setenv("HPO_OIDC_ISSUER", "https://id.example")
    monkeypatch.setenv("HPO_OIDC_CLIENT_ID", "hpo")
    monkeypatch.setenv("HPO_OIDC_REDIRECT_URL", "https://hpo.example/oidc/callback")
    api = yaml.safe_load(tools.run(*command).stdout)["services"]["api"]
    assert {"hpo_oidc_client_secret", "oidc_rules"} <= {secret["source"] for secret in api["secrets"]}
    assert api["environment"]["HPO_OIDC_RULES"] == "/run/secrets/oidc_rules"
    assert api["environment"]["HPO_EXECUTOR"] == "ray"


def test_compose_sends_traces(services: dict[str, Any], tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("docker-compose", "-f", "compose.yaml", "-f", "compose.traces.yaml", "config")
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in tools.run(*command).stderr
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    composed = yaml.safe_load(tools.run(*command).stdout)
    for name in ("api", "dispatcher"):
        service = composed["services"][name]
        assert service["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
        assert service["environment"]["HPO_EXECUTOR"] == "ray"
        assert not all(composed["networks"][network].get("internal") for network in service["networks"])
    assert set(services["dispatcher"]["networks"]) == {"database", "cluster"}


def test_containers_are_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert name in ROOT or re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert name in ONCE or service["healthcheck"]["test"], name
        assert all(str(port["host_ip"]).startswith("127.") for port in service.get("ports", [])), name


def test_secrets_are_files(services: dict[str, Any], deploy: Path) -> None:
    for name, service in services.items():
        words = [word for key, word in service.get("environment", {}).items() if not key.endswith(("_FILE", "_PATH"))]
        told = [str(word) for word in words if word != "http://mlflow:5000"]
        assert not any("://" in word or "secret" in word for word in told), name
    making = (deploy / "make-secrets.sh").read_text()
    wanted = {secret["source"] for service in services.values() for secret in service.get("secrets", [])}
    assert wanted == set(re.findall(r"^keep (\w+)", making, re.MULTILINE))


def test_workers_do_not_reach_the_database(services: dict[str, Any]) -> None:
    for name in ("worker", "ray-head"):
        assert set(services[name]["networks"]) == {"cluster"}
        assert {secret["source"] for secret in services[name]["secrets"]} == {"ray_token"}


def test_secrets_are_made_once(tools: Tools, deploy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    for _ in range(2):
        subprocess.run([deploy / "make-secrets.sh", folder], check=True, capture_output=True)
        first = {path.name: path.read_text() for path in folder.iterdir()}
    assert {path.name: path.read_text() for path in folder.iterdir()} == first
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(set(first.values())) == len(first) == 10
    assert first["hpo_password"] in first["hpo_database_url"]
    assert all(len(first[name]) == 64 for name in ("ray_token", "hpo_metrics_token", "hpo_password"))


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("api", {"object-store", "mlflow", "oidc", "otel"}),
        ("worker", {"trainer", "zero", "ray", "object-store", "quantized", "otel"}),
    ],
)
def test_locked_requirements_fulfil_the_project(deploy: Path, file: str, extras: set[str]) -> None:
    """Made by `make lock`; a dependency that is added or raised must be locked again."""
    locked = deploy / "requirements" / f"{file}.txt"
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", locked.read_text(), re.MULTILINE))
    versions = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    project = tomllib.loads((deploy.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    for line in wanted:
        need = Requirement(line)
        version = versions.get(canonicalize_name(need.name))
        assert version is not None, f"{need.name} is not in {locked.name}; run: make lock"
        assert version in need.specifier, f"{need} against {version} in {locked.name}; run: make lock"
    assert locked.read_text().count("--hash=sha256:") >= len(versions)
    assert ("torch" in versions) == (file == "worker")
