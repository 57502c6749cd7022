"""What an exported value is about, which decides whose it is in a file that others own."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Group(StrEnum):
    """Hyperparameters are what a search finds; everything else belongs to the file, unless it is asked for."""

    HYPERPARAMETERS = "hyperparameters"
    MODEL = "model"
    DATA = "data"
    BATCH = "batch"
    PRECISION = "precision"
    SEED = "seed"
    RUN = "run"
    PROVENANCE = "provenance"


#: what may be asked for beside the hyperparameters, in words
GROUPS: Mapping[Group, str] = MappingProxyType(
    {
        Group.MODEL: "base model and how it is quantized",
        Group.DATA: "rows, their format, length, packing and which tokens count",
        Group.BATCH: "examples per device at a time, to train and to evaluate",
        Group.PRECISION: "number format and attention kernel",
        Group.SEED: "the seed",
        Group.RUN: "how it is run: method, activation checkpointing, sharding, names",
        Group.PROVENANCE: "where the values come from, as values",
    }
)
