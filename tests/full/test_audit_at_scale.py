"""A long audit log is checked row by row: the memory that it takes does not grow with it."""

import io
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.engine import make_url

from hpo_service.local.postgres import SUPERUSER, EmbeddedPostgres
from hpo_service.storage.audit_chain import BEGINNING, Link
from hpo_service.storage.audit_tables import AuditHead
from hpo_service.storage.database import make_engine, session_factory
from tests import serving
from tests.audited import forge, verdict

ROWS = 100_000
_MOST_BYTES = 64 << 20


def rows() -> Iterator[tuple[object, ...]]:
    link = Link(
        project_id=1,
        number=1,
        at=datetime(2026, 11, 26, tzinfo=UTC),
        who="hpo_key_1",
        key_id=1,
        action="pause_study",
        object="studies/first",
        outcome="done",
        status=202,
        request_id="0123456789abcdef",
        client="127.0.0.1",
        details="{}",
        previous=BEGINNING,
    )
    for _ in range(ROWS):
        hash = link.hash()
        yield (*link.__dict__.values(), hash)
        link = replace(link, number=link.number + 1, at=link.at + timedelta(seconds=1), previous=hash)


@pytest.fixture
def long_log(postgres: EmbeddedPostgres, database_url: str) -> None:
    """As if it had grown."""
    url = postgres.url(str(make_url(database_url).database), role=SUPERUSER)
    engine = make_engine(url, application_name="filler", pool_size=0)
    names = ", ".join([*Link.__dataclass_fields__, "hash"])
    last = ""
    file = io.StringIO()
    for row in rows():
        last = str(row[-1])
        file.write("\t".join(map(str, row)) + "\n")
    file.seek(0)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        raw: Any = connection.connection
        with raw.cursor() as cursor:
            cursor.copy_expert(f"COPY hpo.audit ({names}) FROM STDIN", file)
        connection.execute(insert(AuditHead).values(project_id=1, number=ROWS, hash=last))


def test_a_hundred_thousand_rows(
    long_log: None, postgres: EmbeddedPostgres, database_url: str, engine: Engine, tmp_path: Path
) -> None:
    tracemalloc.start()
    whole = verdict(database_url)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (whole.broken, whole.head.number) == (None, ROWS)
    assert peak_bytes < _MOST_BYTES
    forge(postgres, database_url, f"UPDATE hpo.audit SET who = 'x' WHERE number = {ROWS - 1}")
    begun = time.monotonic()
    assert verdict(database_url).broken == ROWS - 1
    seconds = time.monotonic() - begun
    forge(postgres, database_url, f"UPDATE hpo.audit SET who = 'hpo_key_1' WHERE number = {ROWS - 1}")
    client = serving.serve(engine, serving.settings(tmp_path))
    client.headers.update(serving.bearer(serving.make_key(session_factory(engine))))
    client.post("/v1/login-links").raise_for_status()
    assert verdict(database_url).head.number == ROWS + 1
    begun = time.monotonic()
    page = client.get("/v1/audit", params={"page_size": "500", "page_token": "500", "action": "pause_study"}).json()
    assert len(page["items"]) == 499
    print(f"{ROWS} rows checked in {seconds:.1f} s, {peak_bytes >> 20} MiB; a page in {time.monotonic() - begun:.2f} s")
