"""What is said about a sampler before a study begins."""

import sys
from typing import Any

import pytest

from hpo_service.core.errors import InvalidSpec
from hpo_service.spec import estimate
from tests.searching import RATE, resolved

SPACE = {
    "learning_rate": RATE,
    "lora_r": {"choices": [8, 16]},
    "lr_scheduler": {"choices": ["cosine", "constant"]},
    "warmup_ratio": {"low": 0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
}


def warned(search: dict[str, Any], **more: Any) -> str:
    search = {"strategy": "asha", **search}
    return "\n".join(estimate(resolved(space=SPACE, search=search, **more)).warnings)


def test_gp_is_refused_where_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    asha = {"strategy": "asha", "sampler": "gp"}
    assert resolved(search=asha).search.sampler == "gp"
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidSpec, match="needs torch") as caught:
        resolved(search=asha)
    assert [problem.pointer for problem in caught.value.problems] == ["/search/sampler"]
    assert "hpo-service[trainer]" in caught.value.detail
    assert resolved(search={"strategy": "freeze_thaw", "sampler": "gp"})


def test_what_cma_es_cannot_learn_is_named() -> None:
    assert "sampler cmaes does not learn categories and conditional parameters: lr_scheduler, warmup_ratio" in warned(
        {"sampler": "cmaes"}
    )


@pytest.mark.parametrize("sampler", ["gp", "nsgaii"])
def test_conditional_parameters_are_named(sampler: str) -> None:
    assert f"sampler {sampler} does not learn conditional parameters: warmup_ratio will" in warned({"sampler": sampler})


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "random"])
def test_the_others_take_any_space(sampler: str) -> None:
    assert "sampler" not in warned({"sampler": sampler})


def test_many_trials_are_too_many_for_gp() -> None:
    assert "300 trials at most, of 400" in warned({"sampler": "gp"}, budget={"max_trials": 400})


def test_freeze_thaw_uses_no_sampler() -> None:
    assert "sampler tpe is not used" in warned({"strategy": "freeze_thaw", "sampler": "tpe"})
    assert "sampler" not in warned({"strategy": "freeze_thaw"})
