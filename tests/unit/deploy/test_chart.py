"""The Helm chart by Helm's own library, what it renders by Kubernetes' schemas, and what it promises of every pod."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from hpo_service.auth.oidc import read_rules
from hpo_service.auth.principals import Scope

KUBERNETES = kubernetes_validate.latest_version()
#: no packaged schema has these; their fields are checked below
CUSTOM = {"RayCluster", "ServiceMonitor", "PrometheusRule"}
EVERYTHING: dict[str, Any] = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "grafanaDashboard": {"enabled": True},
    "snapshots": {"location": "s3://bucket/prefix"},
    "settings": {"storeSecret": "s3", "extra": {"HPO_SLOTS_PER_WORKER": "2"}},
    "networkPolicy": {"storeTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ingressFrom": [{"podSelector": {}}]},
    "api": {"ingress": {"enabled": True, "host": "hpo.example", "className": "nginx", "tlsSecret": "tls"}},
    "image": {"api": {"digest": "sha256:" + "0" * 64}, "pullSecrets": [{"name": "registry"}]},
    "ray": {"autoscaling": False, "gpuWorkers": {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}},
    "nodeSelector": {"pool": "service"},
    "outbox": {"enabled": True, "mlflowTrackingUri": "https://mlflow", "secretKeys": ["hpo_slack_url"]},
    "backup": {"enabled": True, "existingClaim": "backups"},
    "oidc": {
        "issuer": "https://id.example",
        "clientId": "hpo",
        "redirectUrl": "https://hpo.example/oidc/callback",
        "rules": [{"claim": "groups", "value": "ml", "project": "default", "scopes": ["study:read"]}],
    },
}
CASES = pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])


@pytest.fixture(scope="module")
def chart(deploy: Path) -> Iterator[helm_python.Chart]:
    """The chart."""
    loaded = helm_python.Chart.load(deploy / "helm" / "hpo")
    yield loaded
    loaded.close()


def rendered(chart: helm_python.Chart, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object."""
    files = chart.render(values, name="search", namespace="ml")
    return [
        thing
        for name, text in files.items()
        if name.endswith(".yaml")
        for thing in yaml.safe_load_all(text)
        if thing is not None
    ]


def pods(things: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The specs of all pods, by component."""
    templates = []
    for thing in things:
        spec = thing.get("spec", {})
        if thing["kind"] == "RayCluster":
            templates += [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
        elif thing["kind"] == "CronJob":
            templates.append(spec["jobTemplate"]["spec"]["template"])
        elif "template" in spec:
            templates.append(spec["template"])
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"] for pod in templates}


@CASES
def test_lint(deploy: Path, values: dict[str, Any]) -> None:
    found = helm_python.lint(deploy / "helm" / "hpo", values, strict=True)
    assert found["errors"] == []
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


@CASES
def test_objects_are_valid(chart: helm_python.Chart, values: dict[str, Any]) -> None:
    things = rendered(chart, values)
    for thing in things:
        if thing["kind"] not in CUSTOM:
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)
    kinds = [thing["kind"] for thing in things]
    assert {"Job", "PodDisruptionBudget", "NetworkPolicy", "RayCluster", "Deployment"} <= set(kinds)
    assert set(kinds) >= CUSTOM or not values
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in things]
    assert len(set(names)) == len(names)


@CASES
def test_pods_are_hardened(chart: helm_python.Chart, values: dict[str, Any]) -> None:
    found = pods(rendered(chart, values))
    optional = {"outbox", "backup"} if values else set()
    assert set(found) == {"migration", "api", "dispatcher", "ray-head", "ray-worker"} | optional
    for component, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, component
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, component
        token = pod.get("automountServiceAccountToken")
        assert token is False or (component == "ray-head" and not values), component
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, component
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, component
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, component
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), component
            assert component in ("migration", "backup") or "livenessProbe" in container, component
            secret = [one for one in container["env"] if "secret" in str(one.get("value", "")).lower()]
            assert all(one["value"].startswith("/run/secrets/") for one in secret), component
            assert {volume["name"] for volume in pod["volumes"]} == {
                mount["name"] for mount in container["volumeMounts"]
            }


def test_each_pod_gets_the_secrets_that_it_needs(chart: helm_python.Chart) -> None:
    keys = {
        component: {
            item["key"] for volume in pod["volumes"] if "secret" in volume for item in volume["secret"]["items"]
        }
        for component, pod in pods(rendered(chart, EVERYTHING)).items()
    }
    assert keys["outbox"] == {"hpo_database_url", "hpo_slack_url"}
    assert keys["backup"] == {"hpo_database_url"}
    assert keys["ray-worker"] == keys["ray-head"] == {"ray_token"}
    assert keys["migration"] == {"hpo_database_url"}
    assert keys["dispatcher"] == {"hpo_database_url", "ray_token"}
    assert keys["api"] == {
        *("hpo_database_url", "hpo_dashboard_database_url", "hpo_metrics_token", "hpo_oidc_client_secret")
    }


def test_people_log_in_by_rules_that_the_service_reads(chart: helm_python.Chart, tmp_path: Path) -> None:
    things = rendered(chart, EVERYTHING)
    (rules,) = [
        thing for thing in things if thing["kind"] == "ConfigMap" and thing["metadata"]["name"].endswith("-oidc")
    ]
    written = tmp_path / "rules.yaml"
    written.write_text(rules["data"]["rules.yaml"])
    (rule,) = read_rules(written)
    assert (rule.project, list(rule.scopes)) == ("default", [Scope.STUDY_READ])
    api = pods(things)["api"]
    environment = {one["name"]: one["value"] for one in api["containers"][0]["env"] if "OIDC" in one["name"]}
    mount = next(mount for mount in api["containers"][0]["volumeMounts"] if mount["name"] == "oidc")
    assert environment == {
        "HPO_OIDC_ISSUER": "https://id.example",
        "HPO_OIDC_CLIENT_ID": "hpo",
        "HPO_OIDC_REDIRECT_URL": "https://hpo.example/oidc/callback",
        "HPO_OIDC_RULES": f"{mount['mountPath']}/rules.yaml",
    }


@pytest.mark.parametrize(
    ("issuer", "ports"), [("", []), ("https://id.example", [443]), ("https://id.example:8443/a", [8443])]
)
def test_the_api_reaches_its_identity_provider_only(chart: helm_python.Chart, issuer: str, ports: list[int]) -> None:
    things = rendered(chart, {"oidc": EVERYTHING["oidc"] | {"issuer": issuer}})
    policies = {thing["metadata"]["name"]: thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy"}
    reached = [port["port"] for way in policies["search-hpo-api"]["egress"] for port in way["ports"]]
    assert reached == [53, 53, 5432, *ports]


@pytest.mark.parametrize("missing", ["clientId", "redirectUrl", "rules"])
def test_half_a_login_is_refused(chart: helm_python.Chart, missing: str) -> None:
    half = {name: value for name, value in EVERYTHING["oidc"].items() if name != missing}
    with pytest.raises(Exception, match=f"oidc.{missing}"):
        rendered(chart, {"oidc": half})


def test_the_cluster_asks_for_gpus_and_a_token(chart: helm_python.Chart) -> None:
    (cluster,) = [thing for thing in rendered(chart, {}) if thing["kind"] == "RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    assert set(spec) == {
        *("rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs")
    }
    (group,) = spec["workerGroupSpecs"]
    assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
    found = pods([cluster])
    assert found["ray-worker"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 8
    for pod in found.values():
        environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        assert environment["RAY_AUTH_MODE"] == "token"
    assert {one["name"] for one in spec["autoscalerOptions"]["env"]} == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def test_workers_reach_neither_database_nor_internet(chart: helm_python.Chart) -> None:
    policies = {
        thing["metadata"]["name"]: thing["spec"] for thing in rendered(chart, {}) if thing["kind"] == "NetworkPolicy"
    }
    assert "ingress" not in policies["search-hpo-nothing"]
    assert policies["search-hpo-nothing"]["policyTypes"] == ["Ingress", "Egress"]
    for rule in policies["search-hpo-ray"]["egress"]:
        ports = {port["port"] for port in rule.get("ports", [])}
        assert ports == {53} or rule["to"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/instance": "search"}


def test_a_backup_runs_the_script_that_operators_run(chart: helm_python.Chart, deploy: Path) -> None:
    values = {"backup": {"enabled": True, "existingClaim": "backups", "schedule": "0 4 * * 0"}}
    things = rendered(chart, values)
    (scripts,) = [thing["data"] for thing in things if thing["kind"] == "ConfigMap"]
    assert scripts == {name: (deploy / name).read_text() for name in ("backup.sh", "database-url.sh")}
    (job,) = [thing["spec"] for thing in things if thing["kind"] == "CronJob"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("0 4 * * 0", "Forbid")
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["snapshots"]["readOnly"]
    assert {one["name"]: one["value"] for one in pod["containers"][0]["env"]}["HPO_SNAPSHOTS"] == "/snapshots"
    with pytest.raises(helm_python.HelmError, match="existingClaim"):
        chart.render({"backup": {"enabled": True}})


def test_the_outbox_reaches_whom_it_tells(chart: helm_python.Chart) -> None:
    peers = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    values = {"outbox": {"enabled": True}, "networkPolicy": {"outboxTo": peers, "outboxPorts": [8443]}}
    (policy,) = [
        thing
        for thing in rendered(chart, values)
        if thing["metadata"]["name"] == "search-hpo-outbox" and thing["kind"] == "NetworkPolicy"
    ]
    assert "ingress" not in policy["spec"]
    assert {"to": peers, "ports": [{"protocol": "TCP", "port": 8443}]} in policy["spec"]["egress"]


def test_migrations_come_first(chart: helm_python.Chart) -> None:
    (job,) = [thing for thing in rendered(chart, {}) if thing["kind"] == "Job"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["hpo", "migrate"]


@pytest.mark.parametrize(
    "values",
    [
        {"api": {"replica": 1}},
        {"image": {"api": {"digest": "latest"}}},
        {"settings": {"extra": {"HPO_DATABASE_URL": "postgresql://u:p@h/d"}}},
        {"settings": {"extra": {"PATH": "/"}}},
        {"snapshots": {"location": "s3://key:secret@bucket"}},
        {"dispatcher": {"replicas": 0}},
        {"serviceMonitor": {"interval": "often"}},
        {"outbox": {"mlflowTrackingUri": "https://user:password@mlflow"}},
        {"outbox": {"secretKeys": ["ray_token"]}},
        {"backup": {"schedule": "nightly"}},
    ],
)
def test_wrong_values_are_refused(chart: helm_python.Chart, values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        chart.render(values)
