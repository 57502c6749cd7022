"""Whom the settings name, and what keeps them from being told."""

import pytest

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.integrations import switches
from hpo_service.integrations.switches import has_sinks, require_usable


@pytest.mark.parametrize(("uri", "expected"), [(None, False), ("", False), ("http://mlflow:5000", True)])
def test_switched_on_by_the_variable(uri: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    settings = Settings()
    require_usable(settings)
    assert has_sinks(settings) is expected


@pytest.mark.parametrize(("mode", "expected"), [("offline", True), ("online", True), ("disabled", False), ("", False)])
def test_wandb_is_switched_on_by_its_mode(mode: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    assert has_sinks(Settings()) is expected
    require_usable(Settings())
    monkeypatch.setattr(switches, "find_spec", lambda name: None)
    if expected:
        with pytest.raises(SetupError, match=r"hpo-service\[wandb\]"):
            require_usable(Settings())


def test_other_stores_than_servers_are_refused_without_their_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:canary@host/mlflow")
    with pytest.raises(SetupError, match="begins with 'postgresql'") as caught:
        require_usable(Settings())
    assert "canary" not in str(caught.value)


def test_a_missing_library_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setattr(switches, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"hpo-service\[mlflow\]"):
        require_usable(Settings())
