"""Whatever changes the losses of a trial is in a file, or the file says that it is not."""

from typing import Any

import pytest
import yaml

from hpo_service.core.errors import NotExpressible
from hpo_service.exporters import FORMATS, render
from tests.exported import OTHER, document
from trainer.spec import Parameters

TRAINERS = ("trl", "axolotl", "llamafactory", "deepspeed")
WHOLE = ("yaml", "json", "env", "helm", "kustomize", "hydra")
SECTIONS: list[tuple[str, dict[str, Any]]] = [
    ("dtype", {"model": {"dtype": "bfloat16"}}),
    ("attention", {"model": {"attention": "sdpa"}}),
    ("quantization", {"model": {"quantization": "nf4"}}),
    ("max_length", {"data": {"max_length": 64}}),
    ("packing", {"data": {"packing": True}}),
    ("learn", {"data": {"learn": "all"}}),
    ("max_train_examples", {"data": {"max_train_examples": 7}}),
    ("seed", {"training": {"seed": 5}}),
]


def body(text: str) -> str:
    """Without comments."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def test_every_hyperparameter_has_another_value() -> None:
    assert OTHER.keys() == Parameters.model_fields.keys()
    assert all(value != getattr(Parameters(), name) for name, value in OTHER.items())


@pytest.mark.parametrize("format", [*TRAINERS, "hf", "peft"])
@pytest.mark.parametrize("name", OTHER)
def test_a_hyperparameter_is_said_or_dropped(format: str, name: str) -> None:
    base: dict[str, Any] = {"lr_scheduler": "wsd"} if name == "decay_ratio" else {}
    before, after = render(format, document(**base)), render(format, document(**{**base, name: OTHER[name]}))
    dropped = name in after.dropped
    filled_in = format == "deepspeed" and '"auto"' in after.text and not dropped
    assert dropped or filled_in or body(before.text) != body(after.text)


@pytest.mark.parametrize("format", TRAINERS)
@pytest.mark.parametrize(("name", "change"), SECTIONS)
def test_a_setting_is_said_or_dropped(format: str, name: str, change: dict[str, Any]) -> None:
    before, after = render(format, document()), render(format, document(**change))
    filled_in = format == "deepspeed" and name == "dtype"
    assert name in after.dropped or filled_in or body(before.text) != body(after.text)


@pytest.mark.parametrize("format", WHOLE)
@pytest.mark.parametrize("change", [*({name: value} for name, value in OTHER.items()), *(one for _, one in SECTIONS)])
def test_formats_for_everything_drop_nothing(format: str, change: dict[str, Any]) -> None:
    before, after = render(format, document(provenance={})), render(format, document(provenance={}, **change))
    assert body(before.text) != body(after.text)
    assert after.dropped == ()


@pytest.mark.parametrize("format", ["trl", "axolotl", "llamafactory", "hf"])
@pytest.mark.parametrize(("dtype", "said"), [("bfloat16", "true"), ("float32", "false"), ("auto", None)])
def test_what_no_device_has_resolved_is_not_handed_on(format: str, dtype: str, said: str | None) -> None:
    """Another program's `auto` is the dtype of the checkpoint, or what it likes."""
    rendered = render(format, document(model={"dtype": dtype}))
    lines = [line.strip(' ,"').replace('"', "") for line in body(rendered.text).splitlines()]
    known = [line for line in lines if line.startswith("bf16:")]
    assert known == ([f"bf16: {said}"] if said else known)
    assert not {"bf16: true", "bf16: false", "dtype: auto", "bf16: auto"}.intersection(lines if said is None else ())
    assert ("dtype" in rendered.dropped) == (said is None or (format == "llamafactory" and dtype == "float32"))


@pytest.mark.parametrize("format", ["trl", "axolotl", "llamafactory"])
def test_a_usual_trial_is_expressed_whole(format: str) -> None:
    made = document(
        model={"dtype": "bfloat16"}, data={"format": "chat", "eval": "eval.jsonl"}, lora_dropout=0.05, use_rslora=True
    )
    assert render(format, made, strict=True).dropped == ()


@pytest.mark.parametrize(("format", "change", "dropped"), [
    ("trl", {"loraplus_lr_ratio": 4.0}, "loraplus_lr_ratio"),
    ("trl", {"init_lora_weights": "pissa"}, "init_lora_weights"),
    ("axolotl", {"lora_alpha": 11.5}, "lora_alpha"),
    ("llamafactory", {"init_lora_weights": "olora"}, "init_lora_weights"),
    ("llamafactory", {"target_modules": "attention"}, "target_modules"),
    ("trl", {"data": {"packing": True}}, "effective_batch"),
])  # fmt: skip
def test_what_a_target_cannot_say_is_named_and_strict_fails(format: str, change: dict[str, Any], dropped: str) -> None:
    rendered = render(format, document(**change))
    assert dropped in rendered.dropped
    line = next(line for line in rendered.text.splitlines() if line.startswith("# Dropped"))
    assert dropped in line
    with pytest.raises(NotExpressible, match=dropped):
        render(format, document(**change), strict=True)


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("json", "hf", "peft", "deepspeed")])
def test_the_header_says_where_the_values_come_from(format: str) -> None:
    made = document()
    text = render(format, made).text
    assert "# Trial 4 of study s: eval_loss 2.0\n" in text
    assert f"# SHA-256 of the trial {made.trial().digest()[:12]}, base model {'b' * 12}\n" in text
    assert "# Exported 2026-11-24T00:00:00Z by hpo-service 0.1.0\n" in text


def test_a_header_stays_a_comment_whatever_it_says() -> None:
    made = document(provenance={"study": "s\nlearning_rate: 1\x85lora_r: 1\x1b[0m", "trial": 1})
    written = yaml.safe_load(render("trl", made).text)
    assert (written["learning_rate"], written["lora_r"]) == (2e-4, 16)
