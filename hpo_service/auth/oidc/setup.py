"""The provider and the rules that the settings name."""

from typing import TYPE_CHECKING

from hpo_service.auth.oidc.rules import Rule, read_rules
from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings

if TYPE_CHECKING:
    from hpo_service.auth.oidc.provider import Provider

CALLBACK_PATH = "/oidc/callback"
_NEEDED = ("oidc_client_id", "oidc_redirect_url", "oidc_rules")


def connect(settings: Settings) -> tuple["Provider", tuple[Rule, ...]]:
    """Raises SetupError if something is missing or cannot be used. The provider is not asked."""
    missing = [f"HPO_{name.upper()}" for name in _NEEDED if getattr(settings, name) is None]
    if missing:
        raise SetupError(f"HPO_OIDC_ISSUER is set, but {', '.join(missing)} is not; see README, Who may do what.")
    try:
        from hpo_service.auth.oidc.provider import Provider
    except ImportError as error:
        raise SetupError("HPO_OIDC_ISSUER is set, but authlib is missing: pip install 'hpo-service[oidc]'.") from error
    assert settings.oidc_issuer is not None
    assert settings.oidc_client_id is not None
    assert settings.oidc_redirect_url is not None
    assert settings.oidc_rules is not None
    if not settings.oidc_redirect_url.endswith(CALLBACK_PATH):
        raise SetupError(
            f"HPO_OIDC_REDIRECT_URL is {settings.oidc_redirect_url[:200]!r}; it ends with {CALLBACK_PATH}."
        )
    secret = settings.oidc_client_secret
    provider = Provider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        None if secret is None else secret.get_secret_value(),
        settings.oidc_redirect_url,
    )
    return provider, read_rules(settings.oidc_rules)
