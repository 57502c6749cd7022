"""An S3 that lives as long as a test, on a port of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

_BUCKET = "snapshots"


@dataclass(frozen=True)
class ObjectStorage:
    """Where it is, and what this process has in its environment to reach it."""

    url: str
    environment: dict[str, str]


@contextmanager
def served_s3(patch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """An empty bucket; its credentials are in the environment meanwhile, and no others."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # What it holds is its process's, and outlives a server.
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        patch.setenv(name, value)
    # Its connections belong to the environment of their time.
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        s3fs.S3FileSystem().mkdir(_BUCKET)
        yield ObjectStorage(f"s3://{_BUCKET}/prefix", environment)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
