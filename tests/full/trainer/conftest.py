"""The tiny base and its trials, as the unit tests have them."""

from tests.unit.trainer.conftest import _one_thread as _one_thread
from tests.unit.trainer.conftest import base_folder as base_folder
from tests.unit.trainer.conftest import engine as engine
from tests.unit.trainer.conftest import make_engine as make_engine
from tests.unit.trainer.conftest import make_spec as make_spec
from tests.unit.trainer.conftest import row_files as row_files
from tests.unit.trainer.conftest import token_cache as token_cache
