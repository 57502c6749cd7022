"""Which service to talk to: HPO_URL and HPO_API_KEY, else the one that `hpo up` runs on HPO_HOME."""

import os

from hpo_service.client.http import Client
from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.local.home import Home


def service_url(settings: Settings) -> str:
    """Address of the service."""
    found = os.environ.get("HPO_URL") or Home(settings.home_path()).url()
    return found or f"http://{settings.host}:{settings.port}"


def connect() -> Client:
    """A client for the service. Raises SetupError if no API key is known."""
    settings = Settings()
    home = Home(settings.home_path())
    key = os.environ.get("HPO_API_KEY") or home.key()
    if not key:
        raise SetupError(
            f"No API key: HPO_API_KEY is not set and {home.admin_key} does not exist. Start the service with `hpo up`."
        )
    return Client(service_url(settings), key)
