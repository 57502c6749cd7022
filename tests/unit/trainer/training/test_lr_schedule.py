"""Every schedule at every step against Hugging Face's."""

import pytest
import torch

from tests.plain_peft import plain_scheduler
from trainer.spec import LrScheduler, Parameters
from trainer.training.lr_schedule import learning_rate, total_steps


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.03, 0.25, 1.0])
@pytest.mark.parametrize("decay_ratio", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_every_step_is_hugging_faces(name: LrScheduler, warmup_ratio: float, decay_ratio: float, steps: int) -> None:
    """Also where warm-up and decay overlap."""
    values = Parameters(
        lr_scheduler=name, warmup_ratio=warmup_ratio, decay_ratio=decay_ratio, learning_rate=3e-4, epochs=1.0
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=values.learning_rate)
    schedule = plain_scheduler(optimizer, values, steps)
    for step in range(steps):
        assert learning_rate(values, step, steps) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        schedule.step()


def test_the_last_batch_may_be_partial() -> None:
    assert [total_steps(examples, 8) for examples in (1, 8, 9, 16)] == [1, 1, 2, 2]
