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


@dataclass(frozen=True, kw_only=True)
class Match:
    """The recipe's whole bill over what ours took to match a loss: seconds, with the service's start, examples."""

    worker_time: float
    worker_time_cold: float
    examples: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both sides with one seed; `judged` is the loss of the recipe's best configuration under our trainer."""

    recipe: Side
    ours: Side
    judged: float

    @property
    def recipe_loss(self) -> float:
        """The recipe's best final loss."""
        assert self.recipe.best_loss is not None
        return self.recipe.best_loss

    @property
    def recipe_reached(self) -> float:
        """The share of its bill after which the recipe saw its best loss."""
        reached = self.recipe.reached(self.recipe_loss)
        assert reached is not None
        return reached.seconds / self.recipe.seconds

    def matched(self, loss: float) -> Match | None:
        """When ours was as good; None if it never was."""
        reached = self.ours.reached(loss)
        if reached is None:
            return None
        return Match(
            worker_time=self.recipe.seconds / reached.seconds,
            worker_time_cold=self.recipe.seconds / (reached.seconds + self.ours.start_seconds),
            examples=self.recipe.examples / reached.examples,
        )


def first_at_most(curve: Sequence[Point], loss: float) -> Point | None:
    """The first point of a curve with that loss or a lower one."""
    return next((point for point in curve if point.loss <= loss), None)


class Cells:
    """What was measured, one JSON line each, so that an interrupted run goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, key: str) -> Side | None:
        """The side that was measured under this key."""
        found = self._find(key, "side")
        return None if found is None else Side.from_json(found)

    def find_loss(self, key: str) -> float | None:
        """The loss that was measured under this key."""
        found = self._find(key, "loss")
        return None if found is None else float(found)

    def add(self, key: str, side: Side) -> None:
        """Keep a side."""
        self._append({"key": key, "side": asdict(side)})

    def add_loss(self, key: str, loss: float) -> None:
        """Keep a loss."""
        self._append({"key": key, "loss": loss})

    def _find(self, key: str, what: str) -> Any:  # noqa: ANN401
        if not self._path.is_file():
            return None
        lines = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        return next((line[what] for line in lines if line["key"] == key), None)

    def _append(self, line: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
