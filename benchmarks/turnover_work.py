"""What both sides of the turnover benchmark are given to do."""

from dataclasses import dataclass

from trainer.spec import Parameters

EFFECTIVE_BATCH = 8
EVAL_ROWS = 100
EVAL_BATCH = 32
MAX_LENGTH = 128
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Work:
    """The same trials for both sides. `train` holds `steps` times the effective batch of rows."""

    model: str
    train: str
    eval: str
    steps: int
    threads: int
    configurations: tuple[Parameters, ...]
