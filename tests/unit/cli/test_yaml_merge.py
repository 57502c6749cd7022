"""Values merged into YAML files that people wrote."""

import pytest
import yaml

from hpo_service.cli.yaml_merge import merge
from hpo_service.core.errors import InvalidRequest
from hpo_service.exporters import render
from tests.exported import document

MINE = """# our values
image: "repo/train:1"   # pinned
training:
    # who asks: team nlp
    gpus: 8  # all of them
    lora:
        parameters:
            lora_r: 64   # was 32 before May
            mine: yes
        notes: 'kept'
    steps:
      - fetch
      - train
other: [1, 2]
"""


def test_what_people_wrote_stays() -> None:
    text = render("helm", document(lora_r=8, learning_rate=2e-5)).text
    merged = merge(MINE, "training.lora", text, "values.yaml")
    kept = ["# our values", 'image: "repo/train:1"   # pinned', "    # who asks: team nlp",
            "    gpus: 8  # all of them", "        notes: 'kept'", "other: [1, 2]", "      - fetch"]  # fmt: skip
    assert [line for line in kept if line not in merged.splitlines()] == []
    read = yaml.safe_load(merged)
    assert read["training"]["lora"]["parameters"]["lora_r"] == 8
    assert read["training"]["lora"]["parameters"]["mine"] is True
    (rank,) = [line for line in merged.splitlines() if "lora_r:" in line]
    assert rank.split("#")[1] == " was 32 before May"
    assert "learning_rate: 0.00002\n" in merged
    assert read["training"]["lora"]["model"]["path"] == "models/base"


def test_the_heading_goes_above_the_key_and_is_replaced_next_time() -> None:
    first = merge(MINE, "training.lora", render("helm", document(lora_r=8)).text, "values.yaml")
    lines = first.splitlines()
    above = lines[: lines.index("    lora:")]
    assert above[-1].startswith("    # hpo: ")
    assert "    # hpo: Trial 4 of study s: eval_loss 2.0" in above
    again = merge(first, "training.lora", render("helm", document(lora_r=8)).text, "values.yaml")
    assert again == first
    other = merge(first, "training.lora", render("helm", document(lora_r=16)).text, "values.yaml")
    assert other.count("# hpo: Trial 4") == 1
    assert yaml.safe_load(other)["training"]["lora"]["parameters"]["lora_r"] == 16


@pytest.mark.parametrize("base", ["", "# only a comment\n", "a: 1\n"])
def test_a_new_key_is_made(base: str) -> None:
    text = render("trl", document()).text
    merged = merge(base, "jobs.sft", text, "ci.yaml")
    assert yaml.safe_load(merged)["jobs"]["sft"] == yaml.safe_load(text)
    assert merge(merged, "jobs.sft", text, "ci.yaml") == merged


def test_at_the_top_of_a_trainers_file() -> None:
    """A value that is not needed any more is cleared, what the export does not know stays."""
    mine = "# ours\nbase_model: x\noutput_dir: ./out  # on the big disk\n"
    first = merge(mine, "", render("axolotl", document(loraplus_lr_ratio=4.0)).text, "axolotl.yaml")
    read = yaml.safe_load(first)
    assert (read["output_dir"], read["base_model"], read["loraplus_lr_ratio"]) == ("./out", "models/base", 4.0)
    assert "# on the big disk" in first
    assert "# ours" in first
    second = merge(first, "", render("axolotl", document()).text, "axolotl.yaml")
    assert yaml.safe_load(second)["loraplus_lr_ratio"] is None
    assert second.count("# hpo: Trial 4") == 1


@pytest.mark.parametrize(
    ("base", "key", "message"),
    [
        ("a: 1\n", "a.b", "'a' of a.b in f.yaml holds 1"),
        ("- 1\n", "a", "f.yaml holds no mapping"),
        ("a: [\n", "a", "f.yaml is not YAML"),
    ],
)
def test_what_cannot_take_values_is_refused(base: str, key: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        merge(base, key, render("trl", document()).text, "f.yaml")
