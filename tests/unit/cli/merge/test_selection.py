"""Which values are merged: hyperparameters; what belongs to the file is named; the batch is exact or not written."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpo_service.cli.export_file import Destination, Exported
from hpo_service.cli.merge import included
from hpo_service.core.errors import InvalidRequest
from hpo_service.core.export_groups import Group
from tests.merging import answer

MINE = """base_model: meta-llama/Llama-3.1-8B
bf16: auto
seed: 42
sequence_len: 4096
datasets:
  - path: ours/chat
    type: chat_template
micro_batch_size: 2
gradient_accumulation_steps: 1
learning_rate: 0.001
"""


def deliver(file: Path, values: dict[str, Any], **options: Any) -> Any:
    where = Destination(merge=str(file), **options)
    return where.deliver(Exported(text="", values=values, promotion=""), "subject")


def line_told(said: str, name: str) -> int | None:
    """The line that the sentence on a value names."""
    (sentence,) = [line for line in said.splitlines() if line.strip().startswith(f"Not written: {name}")]
    found = re.search(r"\(line (\d+)\)", sentence)
    return None if found is None else int(found[1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "axolotl.yaml"
    path.write_text(MINE)
    return path


def test_what_belongs_to_the_file_stays_and_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Base model, rows, seed and precision of the search went into production's file."""
    deliver(file, answer("axolotl", effective_batch=16))
    before, after = yaml.safe_load(MINE), yaml.safe_load(file.read_text())
    kept = ("base_model", "bf16", "seed", "sequence_len", "datasets", "micro_batch_size")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert not {"test_datasets", "val_set_size", "load_in_4bit", "eval_batch_size"} & set(after)
    assert (after["learning_rate"], after["lora_r"]) == (0.0002, 16)
    said = capsys.readouterr().err
    assert "learning_rate is now 0.0002 (was 0.001)." in said
    assert "lora_r is now 16 (added)." in said
    assert "Not written: belongs to the file (--include model): base_model (models/base in the search, " \
        "meta-llama/Llama-3.1-8B in the file)" in said  # fmt: skip
    assert "(--include seed): seed (0 in the search, 42 in the file)." in said
    assert "(--include data): sequence_len (512 in the search, 4096 in the file), " in said


def test_groups_are_written_when_they_are_asked_for(file: Path) -> None:
    deliver(file, answer("axolotl"), include=frozenset({Group.SEED, Group.DATA}))
    after = yaml.safe_load(file.read_text())
    assert (after["seed"], after["sequence_len"], after["base_model"]) == (0, 512, "meta-llama/Llama-3.1-8B")


def test_the_datasets_of_a_file_are_no_plain_values(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even when data are asked for, a list of mappings is not written over."""
    deliver(file, answer("axolotl"), include=frozenset({Group.DATA}))
    assert yaml.safe_load(file.read_text())["datasets"] == yaml.safe_load(MINE)["datasets"]
    said = capsys.readouterr().err
    assert "the file's value holds more than plain values (line " in said
    line = line_told(said, "datasets")
    assert line is not None
    assert file.read_text().splitlines()[line - 1] == "  - path: ours/chat"


@pytest.mark.parametrize(
    ("effective", "micro", "gpus", "steps"), [(16, 2, 1, 8), (16, 2, 4, 2), (24, 3, 1, 8), (2, 2, 1, 1)]
)
def test_accumulation_makes_the_files_own_batch_the_effective_one(
    file: Path, capsys: pytest.CaptureFixture[str], effective: int, micro: int, gpus: int, steps: int
) -> None:
    file.write_text(MINE.replace("micro_batch_size: 2", f"micro_batch_size: {micro}"))
    deliver(file, answer("axolotl", effective_batch=effective), gpus=gpus)
    after = yaml.safe_load(file.read_text())
    assert (after["micro_batch_size"], after["gradient_accumulation_steps"]) == (micro, steps)
    said = (
        f"effective_batch {effective} = micro_batch_size {micro} (the file's) x gradient_accumulation_steps {steps} x"
    )
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("line", "gpus", "why", "number"), [
    ("micro_batch_size: 3", 1, "16 is no multiple of micro_batch_size 3 (the file's) x 1 GPU", 10),
    ("micro_batch_size: auto", 1, "the file has no number under micro_batch_size", 10),
    ("other: 1", 1, "the file has no number under micro_batch_size", None),
    ("micro_batch_size: 2", 3, "16 is no multiple of 3 GPUs", 10),
])  # fmt: skip
def test_a_batch_that_cannot_be_said_is_not_written(
    file: Path, capsys: pytest.CaptureFixture[str], line: str, gpus: int, why: str, number: int | None
) -> None:
    file.write_text(MINE.replace("micro_batch_size: 2", line))
    deliver(file, answer("axolotl", effective_batch=16), gpus=gpus)
    assert yaml.safe_load(file.read_text())["gradient_accumulation_steps"] == 1
    said = capsys.readouterr().err
    assert f"Not written: gradient_accumulation_steps: effective_batch {why}" in said.replace(
        "effective_batch 16 is micro_batch_size times accumulation steps times GPUs, and ", "effective_batch "
    )
    assert (number is not None) == (line_told(said, "gradient_accumulation_steps") is not None)
    if number is not None:
        assert file.read_text().splitlines()[number - 1] == line
        assert line_told(said, "gradient_accumulation_steps") == number


def test_with_the_batch_included_both_are_written(file: Path) -> None:
    deliver(file, answer("axolotl", effective_batch=48), include=frozenset({Group.BATCH}), gpus=4)
    after = yaml.safe_load(file.read_text())
    assert (after["micro_batch_size"], after["gradient_accumulation_steps"], after["eval_batch_size"]) == (6, 2, 32)


def test_an_aliased_batch_is_read_where_it_is_defined(file: Path) -> None:
    file.write_text("x: &b 4\nmicro_batch_size: *b\n")
    deliver(file, answer("axolotl", effective_batch=16))
    assert "micro_batch_size: *b\n" in file.read_text()
    assert "gradient_accumulation_steps: 4\n" in file.read_text()


def test_an_unknown_group_is_refused_with_those_there_are() -> None:
    assert included("model, data") == {Group.MODEL, Group.DATA}
    with pytest.raises(
        InvalidRequest, match=r"no group 'paths'\. There are model: base model .*; data: .*; provenance"
    ):
        included("model,paths")
    with pytest.raises(InvalidRequest, match="use them with --merge"):
        Destination.of(output=None, merge=None, branch=None, include="model", gpus=1, strict=False)


def test_a_file_with_the_values_is_not_touched(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.chmod(0o640)
    deliver(file, answer("axolotl"))
    first = file.stat()
    deliver(file, answer("axolotl"))
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (first.st_mtime_ns, first.st_ino)
    assert first.st_mode & 0o777 == 0o640
    assert "has these values already; nothing was written" in capsys.readouterr().err


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    deliver(link, answer("axolotl"))
    assert link.is_symlink()
    assert "learning_rate: 0.0002" in file.read_text()


def test_keys_of_the_files_own_that_the_export_has_one_level_deeper_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a chart that reads `training.learning_rate` would go on with the old one, and nobody would know."""
    file = tmp_path / "values.yaml"
    file.write_text("training:\n  learning_rate: 0.001\n  lora_r: 16\n  image: x\n")
    where = Destination(merge=f"{file}:training")
    where.deliver(Exported(text="", values=answer("helm"), promotion=""), "subject")
    training = yaml.safe_load(file.read_text())["training"]
    assert (training["learning_rate"], training["parameters"]["learning_rate"]) == (0.001, 0.0002)
    line = file.read_text().splitlines().index("  learning_rate: 0.001") + 1
    assert (
        f"Not written: the file's own learning_rate (line {line}): this format has its values one level below"
        in capsys.readouterr().err
    )


TWICE = MINE + "lora_r: 64\nlora_r: 32\n"


def test_what_is_not_as_it_was_trained_is_told_apart_and_last(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It stood among 25 other lines, and nobody had trained what the file then said."""
    file.write_text(TWICE)
    delivered = deliver(file, answer("axolotl", effective_batch=16))
    assert [line for line in file.read_text().splitlines() if "lora_r:" in line] == ["lora_r: 64", "lora_r: 32"]
    first, second = (number for number, line in enumerate(file.read_text().splitlines(), 1) if "lora_r:" in line)
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == [
        f"Warning: {file} does not say what was trained:",
        f"  Not written: lora_r 16, where the file has 32: lora_r stands there 2 times (lines {first} and {second}).",
    ]
    assert delivered.missed == (said[-1].removeprefix("  Not written: ").removesuffix("."),)
    assert not any("lora_r" in sentence for sentence in delivered.unwritten)


@pytest.mark.parametrize(("text", "why"), [
    (TWICE, r"lora_r 16, where the file has 32: lora_r stands there 2 times \(lines 11 and 12\)"),
    (MINE.replace("micro_batch_size: 2", "micro_batch_size: 3"), r"effective_batch 16 is no multiple of .*\(line 8\)"),
    (MINE + "lora_alpha: ${ALPHA}\n", r"lora_alpha 32.*filled in from elsewhere \(\$\{ALPHA\}\) \(line 11\)"),
])  # fmt: skip
def test_with_strict_a_file_that_would_not_say_it_is_not_written(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    before = file.stat()
    with pytest.raises(InvalidRequest, match=f"--strict: nothing was written to .*{why}"):
        deliver(file, answer("axolotl", effective_batch=16), strict=True)
    assert file.read_text() == text
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_what_belongs_to_the_file_is_no_reason_to_fail(file: Path) -> None:
    """Nor is a shared value that is the trained one already."""
    file.write_text(MINE + "lora_r: &r 16\nmine: *r\n")
    delivered = deliver(file, answer("axolotl", effective_batch=16), strict=True)
    assert delivered.missed == ()
    assert any(sentence.startswith("lora_r 16: it is shared") for sentence in delivered.unwritten)
    assert "learning_rate: 0.0002" in file.read_text()
