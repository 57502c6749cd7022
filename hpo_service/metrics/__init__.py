"""What the service tells Prometheus about itself."""

from hpo_service.metrics.exposition import Metrics

__all__ = ["Metrics"]
