"""Which features are lived together: every pair of them that may meet, in about 45 studies."""

from dataclasses import dataclass, fields
from typing import Any

from covertable import make, sorters

#: feature -> what it may be. Of `freeze_thaw` the sampler is its own.
FEATURES: dict[str, list[Any]] = {
    "strategy": ["freeze_thaw", "asha", "successive_halving", "hyperband", "median", "none"],
    "sampler": ["own", "tpe", "gp", "cmaes", "qmc", "random", "nsgaii"],
    "warm_start": ["off", "named", "auto"],
    "objectives": [1, 2],
    "confirm": [False, True],
    "test_rows": [False, True],
    "packing": [False, True],
    "rows": ["alpaca", "prompt_completion", "chat", "sharegpt", "text"],
    "files": ["jsonl", "jsonl.gz", "parquet", "folder"],
    "adapter": ["plain", "dora", "rslora", "pissa", "loraplus"],
    "checkpointing": [False, True],
    "slots": [1, 2],
    "extend": [False, True],
    "pause": [False, True],
    "kill": [False, True],
    "promote": [False, True],
    "deliver": ["no", "adapter", "merged"],
    "merge": [False, True],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One study, by its features."""

    strategy: str
    sampler: str
    warm_start: str
    objectives: int
    confirm: bool
    test_rows: bool
    packing: bool
    rows: str
    files: str
    adapter: str
    checkpointing: bool
    slots: int
    extend: bool
    pause: bool
    kill: bool
    promote: bool
    deliver: str
    merge: bool

    def __str__(self) -> str:
        """What it is called in a test's name."""
        said = (f"{field.name}_{getattr(self, field.name)}" for field in fields(self)[3:])
        return "-".join([self.strategy, self.sampler, *(one.removesuffix("_True") for one in said if _matters(one))])


def _matters(said: str) -> bool:
    return not said.endswith(("_False", "_off", "_no", "_1", "_plain"))


def _implies(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"operator": "or", "conditions": [{"operator": "not", "condition": one}, other]}


def _is(feature: str, value: object) -> dict[str, Any]:
    return {"operator": "eq", "left": feature, "value": value}


def _differs(feature: str, value: object) -> dict[str, Any]:
    return {"operator": "ne", "left": feature, "value": value}


#: what the service takes together, in the library's terms
CONSTRAINTS = [
    _implies(_is("strategy", "freeze_thaw"), _is("sampler", "own")),
    _implies(_is("sampler", "own"), _is("strategy", "freeze_thaw")),
    _implies(_differs("warm_start", "off"), _is("strategy", "freeze_thaw")),
    _implies(_is("strategy", "median"), _is("objectives", 1)),  # it drops trials by their loss alone
    _implies(_differs("deliver", "no"), _is("promote", True)),  # a promotion is what is delivered
]


def covering_rows() -> list[Row]:
    """Rows in which every two values that may meet do meet, those with the same slots after one another."""
    made = make(FEATURES, sorter=sorters.hash, salt="journeys", constraints=CONSTRAINTS)
    return sorted((Row(**one) for one in made), key=lambda row: (row.slots, str(row)))


#: lived in `make test`: each of them was wrong once
FIXED = (
    # chat rows with a test split, confirmed and delivered; a past; paused in between
    Row(
        strategy="freeze_thaw", sampler="own", warm_start="named", objectives=1, confirm=True, test_rows=True,
        packing=False, rows="chat", files="parquet", adapter="dora", checkpointing=False, slots=1, extend=False,
        pause=True, kill=False, promote=True, deliver="merged", merge=True,
    ),
    # a range that grows below while it runs, and a worker that dies
    Row(
        strategy="asha", sampler="tpe", warm_start="off", objectives=2, confirm=False, test_rows=False, packing=True,
        rows="alpaca", files="folder", adapter="rslora", checkpointing=True, slots=1, extend=True, pause=False,
        kill=True, promote=True, deliver="adapter", merge=True,
    ),
    # two slices at once
    Row(
        strategy="hyperband", sampler="gp", warm_start="off", objectives=1, confirm=True, test_rows=False,
        packing=False, rows="sharegpt", files="jsonl.gz", adapter="pissa", checkpointing=False, slots=2, extend=True,
        pause=True, kill=True, promote=True, deliver="adapter", merge=False,
    ),
    Row(
        strategy="median", sampler="cmaes", warm_start="off", objectives=1, confirm=False, test_rows=True,
        packing=False, rows="prompt_completion", files="jsonl", adapter="loraplus", checkpointing=True, slots=2,
        extend=False, pause=False, kill=True, promote=False, deliver="no", merge=True,
    ),
)  # fmt: skip
