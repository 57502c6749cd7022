"""Which service a command talks to."""

from hpo_service.client.discovery import connect, service_url

__all__ = ["connect", "service_url"]
