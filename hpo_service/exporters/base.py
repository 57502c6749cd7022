"""What every export format shares: the rendered file and numbers that every parser reads as numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Protocol

from hpo_service.exporters.values import BatchSplit, ExportedValue
from trainer.spec import AUTO, TrialFile


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One exported file. `dropped` names what the format has no key for.

    `values` are the file's values one by one, `batch` is how it says the effective batch; None where a file of this
    format cannot be taken apart.
    """

    text: str
    media_type: str
    file_name: str
    dropped: tuple[str, ...] = ()
    values: tuple[ExportedValue, ...] | None = None
    batch: BatchSplit | None = None


class Render(Protocol):
    """An export format."""

    def __call__(self, document: TrialFile) -> Rendered:
        """The document in this format."""


def plain_float(value: float) -> str:
    """Digits without an exponent (`0.0002`): YAML 1.1 readers take `2e-04` for a string."""
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else f"{text}.0"


def json_text(value: object, indent: int = 0) -> str:
    """JSON with plain floats, two spaces a level."""
    inner = " " * (indent + 2)
    if isinstance(value, float):
        return plain_float(value)
    if isinstance(value, Mapping) and value:
        members = [
            f"{inner}{json.dumps(str(key), ensure_ascii=False)}: {json_text(item, indent + 2)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(members) + "\n" + " " * indent + "}"
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        items = [f"{inner}{json_text(item, indent + 2)}" for item in value]
        return "[\n" + ",\n".join(items) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False)


#: values with which a hyperparameter does nothing
_IDLE: Mapping[str, object] = MappingProxyType(
    {
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": "default",
        "loraplus_lr_ratio": 1.0,
        "neftune_noise_alpha": 0.0,
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
    }
)


def settings_not_in(document: TrialFile) -> tuple[str, ...]:
    """What matters of model and data and no training library takes among its arguments."""
    used = {
        "quantization": document.model.quantization != "none",
        "packing": document.data.packing,
        "learn": document.data.learn != "response",
    }
    return ("max_length", *(name for name, matters in used.items() if matters))


def in_bfloat16(document: TrialFile) -> bool | None:
    """Whether the trial is computed in bfloat16; None if no device has said yet what its `auto` is.

    No other program's `auto` means ours: some take the dtype of the checkpoint.
    """
    return None if document.model.dtype == AUTO else document.model.dtype == "bfloat16"


def names_not_in(document: TrialFile, known: frozenset[str]) -> tuple[str, ...]:
    """Hyperparameters that a format has no key for, in the document's order."""
    return tuple(name for name in type(document.parameters).model_fields if name not in known)


def lost(document: TrialFile, said: frozenset[str]) -> tuple[str, ...]:
    """What changes the trial's losses and is not among the names that a file `said`, in the document's order.

    Where rows lie is not asked for: it differs between the service and the program that trains.
    """
    values = document.parameters.model_dump()
    matters = {name: name not in _IDLE or value != _IDLE[name] for name, value in values.items()}
    matters["decay_ratio"] = document.parameters.lr_scheduler == "wsd"
    matters |= {
        "dtype": True,
        "attention": document.model.attention != "auto",
        "quantization": document.model.quantization != "none",
        "max_length": True,
        "packing": document.data.packing,
        "learn": True,
        "max_train_examples": document.data.max_train_examples is not None,
        "seed": True,
    }
    return tuple(name for name, does in matters.items() if does and name not in said)
