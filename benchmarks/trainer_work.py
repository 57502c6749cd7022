"""What every side of the trainer benchmark is given to do, and what it says of it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.spec import DataSpec, ModelSpec, Parameters, TrainingSettings, TrialSpec

Side = Literal["ours", "trainer", "accelerate"]
SEED = 0


class Work(BaseModel):
    """`warmup_steps` are trained before the clock starts, `steps` while it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Side
    model: str
    train: str
    eval: str
    max_length: int
    batch: int
    warmup_steps: int
    steps: int
    threads: int

    def trial(self) -> TrialSpec:
        """The trial in our words; its one epoch is exactly the steps of this work."""
        return TrialSpec(
            model=ModelSpec(path=self.model, dtype="float32"),
            data=DataSpec(
                train=self.train,
                eval=self.eval,
                max_length=self.max_length,
                max_train_examples=(self.warmup_steps + self.steps) * self.batch,
                max_eval_examples=8,
            ),
            parameters=Parameters(
                learning_rate=5e-4, lora_r=16, lora_alpha=32, effective_batch=self.batch, lr_scheduler="constant"
            ),
            training=TrainingSettings(seed=SEED, micro_batch=self.batch),
        )


class Measured(BaseModel):
    """`tokens` without padding and `seconds` of the timed steps; `final_loss` is the mean of the last five."""

    tokens: int
    seconds: float
    final_loss: float
    peak_memory_bytes: int

    @property
    def tokens_per_second(self) -> float:
        """Speed of the timed steps."""
        return self.tokens / self.seconds
