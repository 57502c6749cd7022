"""The model of dispatch keeps its own promises, whatever happens in whatever order."""

from hypothesis import settings

from tests.dispatch_model import DispatchRules

TestDispatchModel = DispatchRules.TestCase
TestDispatchModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)
