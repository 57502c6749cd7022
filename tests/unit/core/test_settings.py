"""Settings come from the environment, or from files for what is secret."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hpo_service.cli.services import load_settings
from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings


def test_secrets_are_read_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hpo_database_url").write_text("postgresql://u:p@h/d\n")
    (tmp_path / "hpo_metrics_token").write_text("x" * 32)
    monkeypatch.setenv("HPO_SECRETS_DIR", str(tmp_path))
    settings = Settings()
    assert settings.require_database_url() == "postgresql://u:p@h/d"
    assert settings.metrics_token is not None
    assert "p@h" not in repr(settings)
    monkeypatch.setenv("HPO_DATABASE_URL", "postgresql://other/d")
    assert Settings().require_database_url() == "postgresql://other/d"


def test_links_to_mlflow_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for uri, shown in (
        ("http://u:secret@mlflow:5000/base?token=secret#x", "http://mlflow:5000/base"),
        ("file:///tmp/runs", None),
        ("http://[::1", None),
        ("http://mlflow:port", None),
        ("", None),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert Settings().mlflow_pages() == shown


def test_a_token_that_can_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="at least 24"):
        Settings(metrics_token="short")
    monkeypatch.setenv("HPO_METRICS_TOKEN", "secret-but-short")
    with pytest.raises(SetupError) as refused:
        load_settings()
    assert "HPO_METRICS_TOKEN" in str(refused.value)
    assert "secret-but-short" not in str(refused.value)
