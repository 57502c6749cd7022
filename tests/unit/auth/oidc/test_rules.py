"""Which claims open which project with which scopes."""

from pathlib import Path
from typing import Any

import pytest

from hpo_service.auth.oidc import Rule, granted, person_of, read_rules
from hpo_service.auth.principals import Scope
from hpo_service.core.errors import SetupError

READ, WRITE, APPROVE = Scope.STUDY_READ, Scope.STUDY_WRITE, Scope.APPROVE
RULES = (
    Rule(claim="groups", value="ml", project="speech", scopes=frozenset({READ, WRITE})),
    Rule(claim="groups", value="leads", project="speech", scopes=frozenset({APPROVE})),
    Rule(claim="email_domain", value="Example.com", project="default", scopes=frozenset({READ})),
)


@pytest.mark.parametrize(
    ("claims", "project", "scopes"),
    [
        ({"groups": ["ml"]}, "speech", {READ, WRITE}),
        ({"groups": ["x", "leads", "ml"]}, "speech", {READ, WRITE, APPROVE}),
        ({"groups": "leads"}, "speech", {APPROVE}),
        ({"groups": ["ml"], "email": "a@example.com", "email_verified": True}, "speech", {READ, WRITE}),
        ({"email": "a@EXAMPLE.com", "email_verified": True}, "default", {READ}),
    ],
)
def test_what_is_granted(claims: dict[str, Any], project: str, scopes: set[Scope]) -> None:
    found = granted(RULES, claims)
    assert found is not None
    assert (found.project, set(found.scopes)) == (project, scopes)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"groups": []},
        {"groups": ["MLOps"]},
        {"groups": "mlops"},
        {"groups": {"ml": True}},
        {"groups": None},
        {"email": "a@example.com"},
        {"email": "a@example.com", "email_verified": False},
        {"email": "a@example.com", "email_verified": "true"},
        {"email": "a@evil.com@example.com", "email_verified": True},
        {"email": "example.com", "email_verified": True},
        {"email": "a@sub.example.com", "email_verified": True},
        {"email": ["a@example.com"], "email_verified": True},
        {"email_domain": "example.com"},
    ],
)
def test_what_is_not_granted(claims: dict[str, Any]) -> None:
    assert granted(RULES, claims) is None


def test_a_person_is_who_the_provider_says_not_what_their_address_is() -> None:
    one = person_of({"iss": "https://a", "sub": "1", "email": "a@x.org"})
    assert person_of({"iss": "https://a", "sub": "1", "email": "new@x.org"}).subject == one.subject
    others = [{"iss": "https://b", "sub": "1"}, {"iss": "https://a", "sub": "2"}]
    assert len({one.subject, *(person_of(other | {"email": "a@x.org"}).subject for other in others)}) == 3
    assert (one.name, person_of({"iss": "i", "sub": "s\n\x1b" + "x" * 99}).name) == ("a@x.org", "s" + "x" * 59)


def test_rules_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "oidc.yaml"
    file.write_text("- {claim: groups, value: ml, project: speech, scopes: ['study:read', 'study:write']}\n")
    assert read_rules(file) == RULES[:1]
    for content, said in (
        ("- {claim: groups, value: ml, project: speech, scopes: [everything]}", "0/scopes"),
        ("- {claim: groups, value: ml, project: speech, scopes: []}", "0/scopes"),
        ("- {claim: groups, value: ml, project: a/b, scopes: ['study:read']}", "0/project"),
        ("- {claim: groups, value: ml, project: a, scopes: ['study:read'], extra: 1}", "0/extra"),
        ("[]", "nobody could log in"),
        ("", "the file"),
        ("a: [", "cannot be read"),
    ):
        file.write_text(content)
        with pytest.raises(SetupError, match="HPO_OIDC_RULES") as refused:
            read_rules(file)
        assert said in refused.value.detail
    with pytest.raises(SetupError, match="cannot be read"):
        read_rules(tmp_path / "none")
