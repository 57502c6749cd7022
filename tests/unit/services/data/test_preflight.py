"""Files that a study names: where they may lie and what they must hold."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpo_service.core.errors import InvalidSpec
from hpo_service.services.data import preflight
from hpo_service.spec import parse_spec
from tests import serving


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "files"
    serving.make_inputs(folder)
    return folder


def inspect(root: Path, *more_roots: Path, **changes: Any) -> preflight.Inputs:
    return preflight.inspect(parse_spec(serving.spec(**changes)), [root, *more_roots])


def pointer_of(error: pytest.ExceptionInfo[InvalidSpec]) -> tuple[str, str]:
    problem = error.value.problems[0]
    return problem.pointer, problem.detail


def test_paths_become_absolute_and_rows_are_counted(root: Path) -> None:
    inputs = inspect(root)
    assert inputs.model_path == str(root / "model")
    assert (inputs.train_rows, inputs.eval_rows) == (serving.ROWS, 60)
    split = inspect(root, data={"train": str(root / "train.jsonl"), "eval_fraction": 0.1})
    assert (split.eval, split.train_rows, split.eval_rows) == (None, 180, 20)
    capped = inspect(root, data={"train": "train.jsonl", "eval": "eval.jsonl", "max_train_examples": 7})
    assert capped.train_rows == 7


def test_the_format_of_the_rows_is_found_where_all_files_agree(root: Path) -> None:
    """What exporters were told was `auto`."""
    assert inspect(root).data_format == "alpaca"
    (root / "chat.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 4
    )
    assert inspect(root, data={"train": "chat.jsonl"}).data_format == "chat"
    assert inspect(root, data={"train": "chat.jsonl", "eval": "eval.jsonl"}).data_format == "auto"


def test_the_first_root_that_has_it_wins(root: Path, tmp_path: Path) -> None:
    other = tmp_path.resolve() / "other"
    serving.make_inputs(other)
    (root / "train.jsonl").unlink()
    assert inspect(root, other).train == str(other / "train.jsonl")
    assert inspect(root, other).model_path == str(root / "model")


def test_links_are_followed_before_they_are_judged(root: Path, tmp_path: Path) -> None:
    (root / "good.jsonl").symlink_to(root / "train.jsonl")
    assert inspect(root, data={"train": "good.jsonl"}).train == str(root / "train.jsonl")
    outside = tmp_path / "outside.jsonl"
    outside.write_text((root / "train.jsonl").read_text())
    (root / "bad.jsonl").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    (root / "loop.jsonl").symlink_to(root / "loop.jsonl")
    for written in ("bad.jsonl", "folder/outside.jsonl", "loop.jsonl"):
        with pytest.raises(InvalidSpec) as error:
            inspect(root, data={"train": written})
        assert pointer_of(error)[0] == "/data/train"


@pytest.mark.parametrize(
    "written", ["../files/../outside", "/", "/proc/self/environ", "a/../../x", "~/x", "x\ny", "a\0b"]
)
def test_nothing_outside_the_roots(root: Path, written: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        inspect(root, data={"train": written})
    assert pointer_of(error)[0] == "/data/train"


def test_a_pipe_is_not_read(root: Path) -> None:
    os.mkfifo(root / "pipe.jsonl")
    with pytest.raises(InvalidSpec, match="not a file"):
        inspect(root, data={"train": "pipe.jsonl"})


def test_a_name_that_is_too_long(root: Path) -> None:
    with pytest.raises(InvalidSpec):
        inspect(root, data={"train": "x" * 400})


def test_one_row_cannot_be_split(root: Path) -> None:
    (root / "one.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(InvalidSpec, match="one row"):
        inspect(root, data={"train": "one.jsonl"})


def test_a_changed_file_is_counted_again(root: Path) -> None:
    assert inspect(root).train_rows == serving.ROWS
    with (root / "train.jsonl").open("a") as file:
        file.write('{"instruction": "a", "output": "b"}\n')
    assert inspect(root).train_rows == serving.ROWS + 1


def test_folders_and_other_formats(root: Path, tmp_path: Path) -> None:
    shards = root / "shards"
    shards.mkdir()
    for name in ("a", "b"):
        (shards / f"{name}.jsonl").write_text('{"prompt": "x", "completion": "y"}\n' * 5)
    pq.write_table(pa.Table.from_pylist([{"text": "x"}] * 30), root / "eval.parquet")
    inputs = inspect(root, data={"train": "shards", "eval": "eval.parquet"})
    assert (inputs.train, inputs.train_rows, inputs.eval_rows) == (str(shards), 10, 30)
    with pytest.raises(InvalidSpec, match=r"a\.jsonl, line 1: `text` is missing"):
        inspect(root, data={"train": "shards", "eval": "eval.parquet", "format": "text"})
    (shards / "b.jsonl").unlink()
    outside = tmp_path / "outside.jsonl"
    outside.write_text('{"prompt": "x", "completion": "y"}\n')
    (shards / "b.jsonl").symlink_to(outside)
    with pytest.raises(InvalidSpec, match="link out of the folders"):
        inspect(root, data={"train": "shards"})
    with pytest.raises(InvalidSpec, match="holds no shards"):
        inspect(root, data={"train": "model"})


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not JSON"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", '{"auto_map": {}}', "auto_map"),
        ("tokenizer_config.json", '{"auto_map": {}}', "auto_map"),
        ("adapter_config.json", "{}", "with that adapter"),
        ("model.safetensors", None, "safetensors"),
    ],
)
def test_models_that_are_refused(root: Path, name: str, content: str | None, hint: str) -> None:
    file = root / "model" / name
    if content is None:
        file.rename(root / "model" / "pytorch_model.bin")
    else:
        file.write_text(content)
    with pytest.raises(InvalidSpec) as error:
        inspect(root)
    pointer, detail = pointer_of(error)
    assert pointer == "/model/path"
    assert hint in detail
