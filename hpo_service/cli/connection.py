"""Which service a command talks to."""

from hpo_service.connection import connect, service_url

__all__ = ["connect", "service_url"]
