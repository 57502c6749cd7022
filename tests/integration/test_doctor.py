"""`hpo doctor` on a real database, and what it says of this machine's libraries."""

import json
import time

import pytest
from sqlalchemy import Engine

from hpo_service.cli import main
from hpo_service.cli.machine_checks import check_devices
from hpo_service.storage.database.facts import read_facts
from hpo_service.storage.database.preparation import downgrade, head, upgrade


def test_facts_of_a_prepared_database(database_url: str, engine: Engine) -> None:
    facts = read_facts(database_url)
    assert facts.revision == facts.head == head()
    assert facts.optuna_revision == facts.optuna_head
    assert facts.optuna_revision is not None
    assert abs(facts.clock_ahead_seconds) < 2.0
    assert 0 < facts.connections <= facts.most_connections
    downgrade(engine, "0005")
    assert read_facts(database_url).revision == "0005"
    upgrade(engine)


def test_facts_of_an_empty_database(empty_database_url: str) -> None:
    facts = read_facts(empty_database_url)
    assert facts.revision is facts.optuna_revision is None


def test_this_machines_libraries_are_looked_at() -> None:
    found = {one.check: one for one in check_devices()}
    assert found["gpus"].ok
    assert found["deepspeed"].detail.startswith("0.")


def test_the_command(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPO_DATABASE_URL", database_url)
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    monkeypatch.setenv("HPO_PORT", "1")
    monkeypatch.setattr("hpo_service.cli.doctor.check_devices", list)
    began = time.monotonic()
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "-o", "json"])
    assert stopped.value.code == 1, "no API and no worker"
    assert time.monotonic() - began < 60
    said = {found["check"]: found for found in json.loads(capsys.readouterr().out)}
    assert {name for name in ("database", "postgresql", "schema", "optuna", "clock", "disk") if said[name]["ok"]} == {
        *("database", "postgresql", "schema", "optuna", "clock", "disk")
    }
    assert not said["api"]["ok"]
    assert said["api"]["remedy"]
