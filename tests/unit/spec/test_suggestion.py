"""Which preset, how its ranges shrink, and what is written."""

from ruamel.yaml import YAML

from hpo_service.spec import PastStudy, Traits
from hpo_service.spec.suggestion import Bill, fitting_preset, narrowed, written

SPACE = {
    "learning_rate": {"low": 5e-5, "high": 1e-3, "log": True},
    "lora_r": {"choices": [8, 16, 32, 64]},
    "target_modules": {"choices": ["all-linear", "q_proj"]},
    "lora_alpha": 32,
}


def traits(parameters: int | None) -> Traits:
    return Traits(architecture="LlamaForCausalLM", model_parameters=parameters, row_bytes=100.0)


def past(*, similarity: float = 1.0) -> PastStudy:
    """20 trials, the best with learning rates of 2e-4 to 2.4e-4 and rank 8."""
    points = tuple({"learning_rate": 2e-4 + index * 1e-5, "lora_r": 8 if index < 10 else 64} for index in range(20))
    losses = tuple(map(float, range(20)))
    return PastStudy(
        study="old", similarity=similarity, examples=100, points=points, losses=losses, good=tuple(range(5))
    )


def test_the_preset_follows_from_the_sizes_of_model_and_data() -> None:
    assert fitting_preset(traits(70_000_000_000), 100).value == "large-zero3"
    assert fitting_preset(traits(1_000_000_000), 100).value == "small-data"
    assert fitting_preset(traits(None), 50_000).value == "standard"


def test_ranges_shrink_to_where_similar_studies_were_best() -> None:
    found = narrowed(SPACE, [past()])
    assert found["learning_rate"].value == {"low": 6.7e-5, "high": 7.2e-4, "log": True}
    assert found["lora_r"].value == {"choices": [8, 16]}
    assert found["lora_r"].why == "the best quarter of the trials of old lies between 8 and 8"
    assert set(found) == {"learning_rate", "lora_r"}


def test_a_past_that_is_not_alike_narrows_nothing() -> None:
    assert narrowed(SPACE, [past(similarity=0.2)]) == {}
    assert narrowed(SPACE, []) == {}


def test_what_is_written_is_the_spec_with_reasons() -> None:
    spec = {"metadata": {"name": "s"}, "preset": "quick", "space": {"learning_rate": {"low": 1e-05, "high": 1e-3}}}
    text = written(spec, {"preset": "few rows", "space.learning_rate": "it was best"})
    assert YAML(typ="safe", pure=True).load(text) == spec
    assert "# Few rows.\npreset:" in text
    assert "  # It was best.\n  learning_rate:" in text


def test_a_bill_says_what_is_known() -> None:
    assert "unknown before the first study" in Bill(examples=10, seconds=None, usd=None).sentence
    assert Bill(examples=10, seconds=7200.0, usd=5.0).sentence.startswith(
        "about 10 examples, 2.0 hours of a worker and 5.00 USD"
    )
    assert "10 minutes of a worker at" in Bill(examples=10, seconds=600.0, usd=None).sentence
