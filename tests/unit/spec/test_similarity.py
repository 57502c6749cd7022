"""How much an earlier study probably tells."""

from typing import Any

from hpo_service.spec import ResolvedStudy, Traits, similarity
from tests.searching import RATE, resolved

LLAMA = Traits(architecture="LlamaForCausalLM", model_parameters=1_000_000, row_bytes=200.0)
SPACE = {"learning_rate": RATE, "lora_r": {"choices": [4, 8]}}


def study(traits: Traits | None = LLAMA, *, model: str = "/m", train: str = "/t", **sections: Any) -> ResolvedStudy:
    found = resolved(**{"space": SPACE, **sections})
    return found.model_copy(
        update={
            "traits": traits,
            "model": found.model.model_copy(update={"path": model}),
            "data": found.data.model_copy(update={"train": train}),
        }
    )


def changed(**changes: object) -> Traits:
    return LLAMA.model_copy(update=changes)


def test_the_same_model_data_and_space_tell_all() -> None:
    assert similarity(study(), study()) == 1.0


def test_every_difference_makes_it_less() -> None:
    same_model = similarity(study(), study(train="/other"))
    sibling = similarity(study(), study(model="/n", train="/other"))
    larger = similarity(study(), study(changed(model_parameters=7_000_000), model="/n", train="/other"))
    stranger = similarity(
        study(),
        study(changed(architecture="Qwen3ForCausalLM", model_parameters=7_000_000), model="/n", train="/other"),
    )
    longer = similarity(study(), study(changed(row_bytes=2000.0), train="/other"))
    more_rows = similarity(study(), study(train_rows=100_000))
    assert 1 > same_model >= sibling > larger > stranger > 0
    assert same_model > longer > 0
    assert 1 > more_rows > 0.3


def test_only_parameters_that_both_vary_count() -> None:
    assert similarity(study(), study(space={"learning_rate": RATE, "lora_r": 8})) == 0.5
    assert similarity(study(), study(space={"lora_dropout": {"low": 0.0, "high": 0.1}})) == 0


def test_studies_from_before_traits_were_read_tell_less() -> None:
    assert 0 < similarity(study(), study(None, model="/n")) < 1
