"""What both sides are given to do, and what they hand back."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

LORA_R = (8, 16, 32, 64)
LORA_ALPHA = (16, 32, 64, 128)
EFFECTIVE_BATCH = (8, 16, 32)
#: a model this small wants a higher learning rate than the article's 1e-5 to 5e-4
LEARNING_RATE = (1e-4, 1e-2)
WARMUP_RATIO = (0.03, 0.15)
LORA_DROPOUT = 0.05
MAX_LENGTH = 96
EVAL_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class LiveWork:
    """The article's search. `rows` are trained on in every trial, `evaluations` times as the recipe reports."""

    model: str
    train: str
    eval: str
    rows: int
    eval_rows: int
    evaluations: int
    trials: int
    threads: int

    def digest(self) -> str:
        """The same for the same work, wherever its files lie."""
        told = {name: value for name, value in asdict(self).items() if name not in ("model", "train", "eval")}
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Point:
    """An evaluation: when it was there, how many examples all trials had seen by then, and its loss."""

    seconds: float
    examples: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side measured: every evaluation in order, the whole bill, and the best final loss of a whole trial.

    `start_seconds` is what it took before the first trial could begin; `seconds` do not count it.
    """

    curve: tuple[Point, ...]
    seconds: float
    examples: int
    trials: int
    complete: int
    best_loss: float | None
    start_seconds: float
    load_average: float

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Side":
        """What `asdict` made."""
        return cls(**{**document, "curve": tuple(Point(**point) for point in document["curve"])})

    def reached(self, loss: float) -> Point | None:
        """The first evaluation that is as good."""
        return first_at_most(self.curve, loss)


def first_at_most(curve: Sequence[Point], loss: float) -> Point | None:
    """The first point of a curve with that loss or a lower one."""
    return next((point for point in curve if point.loss <= loss), None)


class Cells:
    """Finished sides, one JSON line each, so that an interrupted run goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, key: str) -> Side | None:
        """The side that was measured under this key."""
        if not self._path.is_file():
            return None
        lines = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        return next((Side.from_json(line["side"]) for line in lines if line["key"] == key), None)

    def add(self, key: str, side: Side) -> None:
        """Keep it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"key": key, "side": asdict(side)}) + "\n")
