"""Engines: the part of a worker that trains."""
