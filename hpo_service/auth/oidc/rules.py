"""Which claims of a person's ID token open which project, with which scopes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hpo_service.auth.principals import Scope
from hpo_service.core.errors import SetupError
from hpo_service.spec.study import NAME_PATTERN

EMAIL_DOMAIN = "email_domain"
"""Not a claim of its own: what stands behind the `@` of an address that the provider has verified."""
_LONGEST_NAME = 60


class Rule(BaseModel):
    """Whoever has the claim gets the scopes in the project."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: Annotated[str, Field(min_length=1)]
    value: Annotated[str, Field(min_length=1)]
    project: Annotated[str, Field(pattern=NAME_PATTERN)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]


@dataclass(frozen=True)
class Person:
    """Somebody at a provider. `subject` never changes and never is another person; `name` is for people to read."""

    subject: str
    name: str


@dataclass(frozen=True)
class Granted:
    """What the rules give."""

    project: str
    scopes: frozenset[Scope]


_RULES = TypeAdapter(tuple[Rule, ...])


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The list of rules in a YAML file. Raises SetupError that names what is wrong with it."""
    try:
        rules = _RULES.validate_python(YAML(typ="safe", pure=True).load(path.expanduser().read_bytes()))
    except (OSError, YAMLError) as error:
        raise SetupError(f"HPO_OIDC_RULES: {path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, first["loc"])) or "the file"
        raise SetupError(f"HPO_OIDC_RULES: {where} of {path}: {first['msg']}; see README, Who may do what.") from None
    if not rules:
        raise SetupError(f"HPO_OIDC_RULES: {path} has no rules, so nobody could log in; write one.")
    return rules


def granted(rules: Sequence[Rule], claims: Mapping[str, Any]) -> Granted | None:
    """The project of the first rule that holds, with the scopes of all that hold and name it; None if none does."""
    holding = [rule for rule in rules if _holds(rule, claims)]
    if not holding:
        return None
    project = holding[0].project
    return Granted(project, frozenset().union(*(rule.scopes for rule in holding if rule.project == project)))


def person_of(claims: Mapping[str, Any]) -> Person:
    """Who a verified ID token is about."""
    subject = sha256(f"{claims['iss']}\n{claims['sub']}".encode()).hexdigest()
    names = (claims.get(name) for name in ("email", "preferred_username", "name", "sub"))
    name = next(str(found) for found in names if found)
    return Person(subject, "".join(c for c in name if c.isprintable())[:_LONGEST_NAME] or "unnamed")


def _holds(rule: Rule, claims: Mapping[str, Any]) -> bool:
    if rule.claim == EMAIL_DOMAIN:
        domain = _verified_domain(claims)
        return domain is not None and domain == rule.value.lower()
    found = claims.get(rule.claim)
    return rule.value in found if isinstance(found, list) else isinstance(found, str) and found == rule.value


def _verified_domain(claims: Mapping[str, Any]) -> str | None:
    email = claims.get("email")
    if not isinstance(email, str) or claims.get("email_verified") is not True or email.count("@") != 1:
        return None
    return email.partition("@")[2].lower() or None
