"""How credentials are read."""

from hpo_service.api.http.auth import bearer


def test_bearer() -> None:
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    for header in ("", "Bearer", "Bearer ", "Basic abc"):
        assert bearer(header) is None
