"""Stands in for torch and its kin where nothing is computed with them: a worker starts in half a second, not five."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_ABSENT = frozenset({"torch", "transformers", "peft", "tokenizers"})


class _Nothing(type):
    """A class that has whatever is asked of it, so that it can be named, inherited from and annotated with."""

    def __getattr__(cls, name: str) -> Any:
        return _missing(name)

    def __or__(cls, other: Any) -> Any:
        return super().__or__(other)


def _missing(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing(name, (), {"__init__": _ignore, "__call__": _decorated})


def _ignore(self: object, *_: object, **__: object) -> None:
    """Any arguments will do."""


def _decorated(self: object, function: Callable[..., Any]) -> Callable[..., Any]:
    """What `@torch.no_grad()` makes of a function."""
    return function


class _Device:
    """The CPU."""

    type = "cpu"
    index = None

    def __init__(self, name: str) -> None:
        assert name == "cpu"


class _Module(ModuleType):
    """Has every attribute."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        return _missing(name)


class _Finder(MetaPathFinder, Loader):
    """Finds the absent packages and their submodules."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in _ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""


def install() -> None:
    """From now on `import torch` gives the stand-in; safetensors keeps numpy arrays. Before anything of the trainer."""
    assert "torch" not in sys.modules
    sys.meta_path.insert(0, _Finder())
    torch: Any = import_module("torch")
    torch.device = _Device
    torch.OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})
    torch.set_num_threads = lambda _: None
    torch.get_num_threads = lambda: 1
    torch.from_numpy = lambda array: array
    torch.cuda = _Module("torch.cuda")
    torch.cuda.is_available = lambda: False
    sys.modules["safetensors.torch"] = import_module("safetensors.numpy")
