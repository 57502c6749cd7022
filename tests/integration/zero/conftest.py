"""The tiny base and rows of the trainer's unit tests."""

from tests.unit.trainer.conftest import base_folder, make_spec, row_files, token_cache

__all__ = ["base_folder", "make_spec", "row_files", "token_cache"]
