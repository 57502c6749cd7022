"""Which sinks the settings switch on. Loads nothing of what telling them takes."""

from importlib.util import find_spec

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings


def require_usable(settings: Settings) -> None:
    """Raise SetupError if a sink is switched on that cannot be told: a wrong URL, a missing library or secret."""
    require_webhook(settings)
    require_mlflow(settings)
    require_wandb(settings)


def require_webhook(settings: Settings) -> None:
    """Raise SetupError where webhooks are posted and cannot be signed."""
    if settings.webhook_url is not None and settings.webhook_secret is None:
        raise SetupError(
            "HPO_WEBHOOK_URL is set, but HPO_WEBHOOK_SECRET is not; "
            "set it to 24 or more characters that the receiver knows, too."
        )


def require_mlflow(settings: Settings) -> None:
    """Raise SetupError where an MLflow server is named that cannot be told."""
    uri = settings.mlflow_uri()
    if uri is None:
        return
    if not uri.startswith(("http://", "https://")):
        raise SetupError(
            f"MLFLOW_TRACKING_URI begins with {uri.partition(':')[0]!r}, but studies are told to servers only; "
            "set it to an http:// or https:// URL, or unset it."
        )
    if settings.mlflow_pages() is None:
        raise SetupError("MLFLOW_TRACKING_URI is no URL; look at its host and port, or unset it.")
    require_mlflow_client("MLFLOW_TRACKING_URI is set")


def require_wandb(settings: Settings) -> None:
    """Raise SetupError where Weights & Biases is to be told without its client."""
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
    urls = (settings.mlflow_uri(), settings.webhook_url, settings.slack_url)
    return tells_wandb(settings) or any(url is not None for url in urls)


def tells_wandb(settings: Settings) -> bool:
    """Whether Weights & Biases is told, over the network or into a folder."""
    return settings.wandb_mode in ("online", "offline")
