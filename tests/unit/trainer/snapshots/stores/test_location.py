"""Where a snapshot store may be, and what a worker needs to reach it."""

from pathlib import Path
from queue import Queue

import pytest
import torch
from pydantic import BaseModel

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.executors.worker_process import worker_environment
from trainer.common.errors import UserError
from trainer.data.token_cache import TokenCache
from trainer.snapshots.stores import open_store
from trainer.snapshots.stores.location import credential_prefixes, parse_location
from trainer.spec import Ready
from trainer.worker import loop as turns
from trainer.worker.resident_trials import Residents


def test_a_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_location("snapshots") == str(tmp_path / "snapshots")
    assert parse_location(tmp_path / "a" / ".." / "b") == str(tmp_path / "b")
    assert Settings(home=tmp_path).snapshots_location() == str(tmp_path / "snapshots")


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/b", "gs://my.bucket-1/a_b", "memory://b/c"])
def test_a_url_of_bucket_and_prefix(url: str) -> None:
    assert parse_location(url) == url
    assert parse_location(f"{url}/") == url


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///a",
        "s3://bucket//a",
        "s3://bucket/../other",
        "s3://bucket/./a",
        "s3://b/*",
        "s3://b/a b",
        "s3://-/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="write s3://BUCKET"):
        parse_location(url)


@pytest.mark.parametrize("url", ["s3://key:canary@bucket/a", "s3://canary@bucket", "s3://bucket/a?secret=canary"])
def test_a_secret_in_the_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(SetupError, match="credentials come from the environment") as caught:
        Settings(home=tmp_path, snapshots=url).snapshots_location()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:///tmp/x", "http://host/x", "canary://x"])
def test_other_kinds_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="no kind of snapshot store"):
        parse_location(url)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise ImportError("Install s3fs to access S3", name="s3fs")

    monkeypatch.setattr("trainer.snapshots.stores.import_module", fails)
    with pytest.raises(UserError, match=r"pip install 'hpo-service\[object-store\]'"):
        open_store("s3://bucket")


def test_a_worker_without_the_library_says_so_and_waits_for_its_end(
    token_cache: TokenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(Exception):
        pass

    def fails(_: str) -> None:
        raise ImportError("Install s3fs to access S3", name="s3fs")

    def end(_: float) -> None:
        raise Ended

    monkeypatch.setattr("trainer.snapshots.stores.import_module", fails)
    monkeypatch.setattr("trainer.worker.loop.time.sleep", end)
    said: list[BaseModel] = []
    with pytest.raises(Ended):
        turns.serve("s3://bucket", Residents(torch.device("cpu"), 1, token_cache), Queue(), said.append)
    (ready,) = said
    assert isinstance(ready, Ready)
    assert ready.marker == ""
    assert "hpo-service[object-store]" in ready.marker_problem


def test_only_the_workers_of_an_object_store_get_its_credentials() -> None:
    parent = {"AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": "y", "GOOGLE_APPLICATION_CREDENTIALS": "z", "PATH": "/"}

    def passed_on(location: str) -> set[str]:
        return {name for name in worker_environment((0,), parent, credential_prefixes(location)) if name in parent}

    assert passed_on("/snapshots") == {"PATH"}
    assert passed_on("s3://b") == {"PATH", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}
    assert passed_on("gs://b") == {"PATH", "GOOGLE_APPLICATION_CREDENTIALS"}
