"""What presets say of the Tinker cookbook's sweep is what its table says."""

from collections.abc import Callable, Iterable

import pytest

from hpo_service.spec.presets import PRESETS, load_preset
from tests.unit.spec.tinker_sweep import SWEEP, Swept

#: parameters of models as their weight files count them
REAL_8B = {"Llama-3.1-8B": 8_030_261_248, "Qwen3-8B": 8_190_735_360, "Ministral-8B": 8_019_808_256}
REAL_9B = {"Qwen3.5-9B": 9_000_000_000, "gemma-2-9b": 9_241_705_984}


def said(name: str) -> str:
    """The preset's text as one line, comment signs left out."""
    return " ".join(load_preset(name).source.replace("\n#", " ").split())


def loses(rate: float, of: Iterable[Swept]) -> list[float]:
    """What that learning rate loses on those of the models on which it was tried."""
    return [model.by_rate[rate] for model in of if rate in model.by_rate]


def between(low: float, high: float) -> list[Swept]:
    return [model for model in SWEEP if low <= model.billions <= high]


def spread(losses: list[float]) -> str:
    low = f"{min(losses):.1f}".removesuffix(".0")
    return f"{low} to {max(losses):.1f} %"


SMALL, LARGE = between(0, 8), between(8.1, 10_000)
UP_TO_8B = f"up to 8B 1e-3 loses at most {max(loses(1e-3, SMALL)):.1f} %"
ABOVE_8B = f"above 8B 3e-4 loses at most {max(loses(3e-4, LARGE)):.1f} %"


def test_up_to_8b_one_of_two_learning_rates_is_best() -> None:
    assert all(0.0 in (model.by_rate[3e-4], model.by_rate[1e-3]) for model in SMALL)
    assert len(SWEEP) == 35


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("quick", f"1e-3 loses at most {max(loses(1e-3, SMALL)):.1f} % there"),
        ("quick", f"3e-4 up to {max(loses(3e-4, SMALL)):.1f} % (at 1B)"),
        ("quick", f"and {max(loses(3e-4, between(4, 8))):.1f} % from 4B on"),
        ("quick", f"Above, 3e-4 loses at most {max(loses(3e-4, LARGE)):.1f} %"),
        ("quick", f"At 1e-4 the runs lose {spread(loses(1e-4, SWEEP))}"),
        ("quick", UP_TO_8B),
        ("standard", UP_TO_8B),
        *((preset, ABOVE_8B) for preset in ("quick", "standard", "wide", "large-zero3")),
    ],
)
def test_learning_rates(preset: str, words: str) -> None:
    assert words in said(preset)


def test_ranks() -> None:
    def losing(rank: int, suits: Callable[[float], bool]) -> list[float]:
        """On models on which larger ranks were tried, or this one was the largest and not the only comparison."""
        tried = [model for model in SWEEP if suits(model.billions) and max(model.by_rank) >= 16]
        return [model.by_rank[rank] for model in tried if rank in model.by_rank]

    from_4b, below = (lambda size: size >= 4), (lambda size: size < 4)
    assert f"rank 4 loses {spread(losing(4, from_4b))} (4B and larger)" in said("standard")
    assert f"or {spread(losing(4, below))} (1 to 3B)" in said("standard")
    assert f"rank 16 at most {max(losing(16, from_4b)):.1f} % or {spread(losing(16, below))}" in said("standard")
    assert f"rank 4 loses {spread(losing(4, lambda _: True))} in the Tinker" in said("wide")


def test_the_largest_models() -> None:
    largest = between(70, 10_000)
    near = [model for model in largest if 0.0 in (model.by_rate.get(3e-4), model.by_rate.get(4e-4))]
    words = f"of {len(largest)} models of 70B and more in the Tinker cookbook's SFT sweep {len(near)} are best at"
    assert words in said("large-zero3")
    assert [model.by_rate[1e-3] for model in largest if model not in near] == [0.0]
    assert f"which costs the others {spread(loses(1e-3, near))}" in said("large-zero3")
    qwen = [model for model in between(30, 30) if model.name.startswith("Qwen3-")]
    assert all(model.by_rate[1e-3] == 0.0 for model in qwen)
    assert f"where 3e-4 costs at most {max(loses(3e-4, qwen)):.1f} %" in said("large-zero3")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("known", [*REAL_8B.values(), *REAL_9B.values()])
def test_what_is_called_8b_is_up_to_8b(preset: str, known: int) -> None:
    called_8b = known in REAL_8B.values()
    for point in load_preset(preset).portfolio:
        if point.to_parameters < 20e9:
            assert point.suits(known) is called_8b
        elif point.from_parameters < 20e9 and point.from_parameters:
            assert point.suits(known) is not called_8b


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_names_a_dtype(preset: str) -> None:
    """What a device computes best in is for the first worker to say."""
    assert "dtype" not in load_preset(preset).document.get("model", {})
