"""What the service tells Prometheus about itself."""

from hpo_service.observability.metrics.exposition import Metrics

__all__ = ["Metrics"]
