"""Which sinks the settings switch on. Loads nothing of what telling them takes."""

from importlib.util import find_spec

from hpo_service.errors import SetupError
from hpo_service.settings import Settings


def require_usable(settings: Settings) -> None:
    """Raise SetupError if a sink is switched on that cannot be told: a wrong URL, a missing library or secret."""
    if settings.webhook_url is not None and settings.webhook_secret is None:
        raise SetupError(
            "HPO_WEBHOOK_URL is set, but HPO_WEBHOOK_SECRET is not; "
            "set it to 24 or more characters that the receiver knows, too."
        )
    uri = mlflow_uri(settings)
    if uri is not None and not uri.startswith(("http://", "https://")):
        raise SetupError(
            f"MLFLOW_TRACKING_URI begins with {uri.partition(':')[0]!r}, but studies are told to servers only; "
            "set it to an http:// or https:// URL, or unset it."
        )
    if uri is not None:
        require_mlflow_client("MLFLOW_TRACKING_URI is set")
    if tells_wandb(settings) and find_spec("wandb") is None:
        raise SetupError(
            f"WANDB_MODE is {settings.wandb_mode}, but Weights & Biases' client is not installed; "
            "install it with: pip install 'hpo-service[wandb]', or unset the variable."
        )


def require_mlflow_client(why: str) -> None:
    """Raise SetupError where MLflow's client is not installed; `why` says what asks for it."""
    if find_spec("mlflow") is None:
        raise SetupError(
            f"{why}, but MLflow's client is not installed; install it with: pip install 'hpo-service[mlflow]'."
        )


def has_sinks(settings: Settings) -> bool:
    """Whether there is anybody to tell."""
    urls = (mlflow_uri(settings), settings.webhook_url, settings.slack_url)
    return tells_wandb(settings) or any(url is not None for url in urls)


def tells_wandb(settings: Settings) -> bool:
    """Whether Weights & Biases is told, over the network or into a folder."""
    return settings.wandb_mode in ("online", "offline")


def mlflow_uri(settings: Settings) -> str | None:
    """MLflow's server; None where there is none."""
    secret = settings.mlflow_tracking_uri
    return (secret.get_secret_value() or None) if secret is not None else None
