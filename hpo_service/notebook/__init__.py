"""Studies of a service in a notebook anywhere: `from hpo_service.notebook import load_study`."""

from hpo_service.notebook.copied_study import load_study

__all__ = ["load_study"]
