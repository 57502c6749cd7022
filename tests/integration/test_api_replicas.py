"""Two API replicas behind one database: a request that reaches both is carried out once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.storage.database import make_engine
from hpo_service.storage.tables import Intent, Study
from tests import serving


def test_both_get_the_same_request_and_one_study_is_made(
    database_url: str, root: Path, sessions: sessionmaker[Session]
) -> None:
    headers = serving.bearer(serving.make_key(sessions)) | {"Idempotency-Key": "once"}
    engines = [make_engine(database_url, application_name=f"api-{number}") for number in range(2)]
    replicas = [serving.serve(engine, serving.settings(root)) for engine in engines]

    def post(replica: TestClient) -> tuple[int, str]:
        answer = replica.post("/v1/studies", json=serving.spec(), headers=headers)
        return answer.status_code, answer.json()["etag"]

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(post, replicas * 4))
    assert len(answers) == 1
    assert answers.pop()[0] == 201
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 1
        assert session.scalar(select(func.count()).select_from(Intent).where(Intent.kind == "create")) == 1
    for engine in engines:
        engine.dispose()
