"""Logging in with an OpenID Connect provider: who somebody is there, and what they may do here."""

from hpo_service.auth.oidc.rules import Granted, Person, Rule, granted, person_of, read_rules

__all__ = ["Granted", "Person", "Rule", "granted", "person_of", "read_rules"]
