"""Study files and --set: what is read, and what is said about what is not."""

from pathlib import Path

import pytest

from hpo_service.cli.documents import apply_settings, parse_yaml, read_document
from hpo_service.core.errors import InvalidRequest, InvalidSpec


def written(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(text)
    return str(path)


def test_yaml_and_json_read_alike(tmp_path: Path) -> None:
    expected = {"a": {"b": 0.0001, "c": [1, True, None]}}
    assert read_document(written(tmp_path, "a:\n  b: 1e-4\n  c: [1, true, null]\n")) == expected
    assert read_document(written(tmp_path, '{"a": {"b": 1e-4, "c": [1, true, null]}}')) == expected


def test_dates_become_text(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, "deadline: 2030-01-01T00:00:00Z\n")) == {
        "deadline": "2030-01-01T00:00:00+00:00"
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\nb: 2\n", "line 2"),
        ("a: 1\na: 2\n", "duplicate key"),
        ("- 1\n", "no mapping"),
        ("", "no mapping"),
        ("a: .nan\n", "finite"),
        ("a: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("a: &x [1]\nb: *y\n", "line 2"),
    ],
)
def test_mistakes_are_invalid_specs(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        read_document(written(tmp_path, text))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="larger than"):
        read_document(written(tmp_path, "a: " + "x" * 2_000_000))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(InvalidSpec, match="byte 3"):
        read_document(str(tmp_path / "study.yaml"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read_document(str(tmp_path / "nothing.yaml"))


def test_set_writes_values_into_the_document() -> None:
    document = apply_settings({"budget": {"max_trials": 4}}, ["budget.max_trials=8", "space.lora_r.choices=[8, 16]"])
    assert document == {"budget": {"max_trials": 8}, "space": {"lora_r": {"choices": [8, 16]}}}


def test_set_reads_numbers_with_exponents() -> None:
    assert apply_settings({}, ["a=1e-4", "b=text", "c="]) == {"a": 0.0001, "b": "text", "c": None}


@pytest.mark.parametrize("setting", ["a", "=1", "a..b=1", "budget.x=1"])
def test_set_refuses_what_has_no_place(setting: str) -> None:
    with pytest.raises(InvalidRequest, match="--set"):
        apply_settings({"budget": 3}, [setting])


def test_set_names_itself_when_its_value_is_wrong() -> None:
    with pytest.raises(InvalidSpec, match=r"--set a=\[1"):
        apply_settings({}, ["a=[1"])


def test_parse_yaml_gives_plain_values() -> None:
    assert parse_yaml("1e-5", "here") == 1e-5
