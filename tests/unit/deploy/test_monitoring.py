"""Alert rules, their tests and the dashboard: every metric in them is one that somebody really serves."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine

from hpo_service.observability.metrics import Metrics
from hpo_service.observability.metrics.database import read_database
from hpo_service.storage.queries.metrics import Figures
from tests.unit.deploy.conftest import Tools

FILES = Path(__file__).parents[3] / "deploy" / "helm" / "hpo" / "files"
#: of NVIDIA's dcgm-exporter, as its default list of counters names them
DCGM = {
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
}
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FILES / "rules.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FILES / "hpo.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in RULES] + [
    (panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]
]


class Nothing(Figures):
    """An empty database's figures."""

    def __init__(self) -> None: ...

    def studies(self) -> dict[str, int]:
        return {}

    def trials(self) -> dict[str, int]:
        return {}

    def workers(self) -> list[Any]:
        return []

    def leader(self) -> None:
        return None

    def attempts(self) -> list[Any]:
        return []

    def live_studies(self) -> list[Any]:
        return []

    def outbox(self) -> list[Any]:
        return []

    def standings(self) -> list[Any]:
        return []

    def open_work(self) -> list[Any]:
        return [type("Row", (), {"what": "intents", "state": "open", "number": 0, "age_seconds": 0.0})]


@pytest.fixture(scope="module")
def served() -> set[str]:
    """Names of all samples that the service can tell."""
    metrics = Metrics(create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none"))
    metrics.observe_request("GET", "/", 200, 0.1)
    families = [*text_string_to_metric_families(metrics.exposition().decode()), *read_database(Nothing())]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, ("",))}


def selectors(expression: str) -> Iterator[str]:
    """Names of the metrics in an expression. Raises ValueError where it is none."""
    found: list[str] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(str(node.name))

    promql_parser.walk(promql_parser.parse(expression), visit)
    yield from found


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_metric_is_served(served: set[str], where: str, expression: str) -> None:
    names = set(selectors(expression))
    assert names, f"{where} looks at nothing"
    assert names <= served | DCGM, f"{where}: {sorted(names - served - DCGM)}"


def test_a_wrong_name_would_be_seen(served: set[str]) -> None:
    assert set(selectors("max(rate(hpo_trials_finished[5m]))")) & served == set()
    with pytest.raises(ValueError, match="parenthesis"):
        list(selectors("max(hpo_studies"))


def test_alerts_say_what_to_do() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "remedy"}, rule["alert"]


def test_the_dashboard_is_whole() -> None:
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    (source,) = DASHBOARD["templating"]["list"]
    assert (source["type"], source["name"]) == ("datasource", "datasource")
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["targets"]


def test_compose_gives_them_to_prometheus_and_grafana(tools: Tools) -> None:
    services = yaml.safe_load(tools.run("docker-compose", "-f", "compose.yaml", "config").stdout)["services"]
    mounted = {
        volume["target"]: Path(volume["source"])
        for name in ("prometheus", "grafana")
        for volume in services[name]["volumes"]
        if volume["type"] == "bind"
    }
    prometheus = yaml.safe_load(mounted["/etc/prometheus/prometheus.yaml"].read_text())
    assert [str(mounted[file]) for file in prometheus["rule_files"]] == [str(FILES / "rules.yaml")]
    (job,) = prometheus["scrape_configs"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/hpo_metrics_token"
    providers = yaml.safe_load((mounted["/etc/grafana/provisioning"] / "dashboards" / "hpo.yaml").read_text())
    folder = providers["providers"][0]["options"]["path"]
    assert mounted[f"{folder}/hpo.json"] == FILES / "hpo.json"


# PyPI has no promtool; what it would say of expressions and of names is tested above without it.
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install promtool)")
def test_promtool(deploy: Path) -> None:
    calls: list[list[str | Path]] = [
        ["check", "rules", FILES / "rules.yaml"],
        ["test", "rules", deploy / "prometheus" / "rules_test.yaml"],
        ["check", "config", "--syntax-only", deploy / "prometheus" / "prometheus.yaml"],
    ]
    for arguments in calls:
        said = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr
