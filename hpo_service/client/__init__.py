"""The API's client, for programs: `from hpo_service.client import best_config`."""

from hpo_service.client.http import ApiProblem, Client, ServiceUnreachable, best_config

__all__ = ["ApiProblem", "Client", "ServiceUnreachable", "best_config"]
