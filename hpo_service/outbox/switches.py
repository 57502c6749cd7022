"""Which sinks the settings switch on. Loads nothing of what telling them takes."""

from importlib.util import find_spec

from hpo_service.errors import SetupError
from hpo_service.settings import Settings


def require_usable(settings: Settings) -> None:
    """Raise SetupError if a sink is switched on that cannot be told: a wrong URL, or its library is missing."""
    uri = mlflow_uri(settings)
    if uri is not None and not uri.startswith(("http://", "https://")):
        raise SetupError(
            f"MLFLOW_TRACKING_URI begins with {uri.partition(':')[0]!r}, but studies are told to servers only; "
            "set it to an http:// or https:// URL, or unset it."
        )
    if uri is not None and find_spec("mlflow") is None:
        raise SetupError(
            "MLFLOW_TRACKING_URI is set, but MLflow's client is not installed; "
            "install it with: pip install 'hpo-service[mlflow]', or unset the variable."
        )


def has_sinks(settings: Settings) -> bool:
    """Whether there is anybody to tell."""
    return mlflow_uri(settings) is not None


def mlflow_uri(settings: Settings) -> str | None:
    """MLflow's server; None where there is none."""
    secret = settings.mlflow_tracking_uri
    return (secret.get_secret_value() or None) if secret is not None else None
