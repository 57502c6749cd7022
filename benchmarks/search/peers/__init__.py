"""Hyperparameter search by others, each through its own library. Nothing here imports the service."""
