"""Checks of single rows: each planted defect is found at its line, and nothing else is."""

import json
import shutil
from pathlib import Path

import pytest

from tests.quality_data import (
    AWS_KEY,
    PRIVATE,
    TOKENS,
    Row,
    clean_rows,
    finding,
    lines_of,
    report_on,
    sentence,
    write_rows,
)
from trainer.quality.patterns import PERSONAL_DATA, SECRETS, is_refusal, kinds_of, masked
from trainer.quality.rowfacts import ROW_CHECKS

DEFECTS: dict[str, Row] = {
    "empty_responses": {"output": " \n"},
    "tiny_responses": {"output": "k."},
    "mojibake": {"output": "the cafÃ© on the corner, itâ€™s closed"},
    "control_characters": {"input": "a bell \x07 rings in the hall"},
    "refusals": {"output": "I'm sorry, but I can't help with that request."},
    "boilerplate": {"output": "All is well.<|im_end|>"},
    "repetition": {"output": "round and round it goes again " * 8},
    "secrets": {"output": f"use {AWS_KEY} for now"},
    "personal_data": {"input": f"write to {PRIVATE['e-mail address']} at once"},
}


@pytest.mark.parametrize("check", DEFECTS)
def test_a_planted_defect_is_found_at_its_line(check: str, tmp_path: Path) -> None:
    rows = clean_rows(40)
    rows[6] |= DEFECTS[check]
    rows[31] |= {**DEFECTS[check], "instruction": rows[31]["instruction"] + " please"}
    held_out = clean_rows(10, seed=1)
    held_out[2] |= DEFECTS[check]
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), write_rows(tmp_path / "b.jsonl", held_out))
    assert lines_of(report, check) == ["a.jsonl:7", "a.jsonl:32", "b.jsonl:3"]
    assert finding(report, check).measure == pytest.approx(3 / 50)
    others = [found.check for found in report.findings if found.check in ROW_CHECKS and found.rows]
    assert others == [check]


def test_clean_rows_pass_every_check(tmp_path: Path, base_folder: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", clean_rows(120))
    report = report_on(train, write_rows(tmp_path / "b.jsonl", clean_rows(60, seed=1)), base_folder)
    assert {found.check: found.verdict for found in report.findings if found.verdict not in ("pass", "not_run")} == {}
    assert report.verdict == "pass"
    assert (report.train_rows, report.eval_rows) == (120, 60)


def test_unreadable_rows_are_counted_and_the_others_still_checked(tmp_path: Path) -> None:
    rows: list[Row | str] = [*clean_rows(20)]
    rows[3] = '{"instruction": "half'
    rows[9] = json.dumps({"instruction": "no output"})
    rows[12] = {**clean_rows(1, seed=5)[0], "output": ""}
    report = report_on(write_rows(tmp_path / "a.jsonl", rows))
    assert lines_of(report, "unreadable_rows") == ["a.jsonl:4", "a.jsonl:10"]
    assert finding(report, "unreadable_rows").verdict == "fail"
    assert "stops training" in finding(report, "unreadable_rows").message
    assert lines_of(report, "empty_responses") == ["a.jsonl:13"]
    assert report.train_rows + report.eval_rows == 18


def test_shards_are_named_with_their_own_lines(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    first, second = clean_rows(5), clean_rows(5, seed=1)
    second[1]["output"] = ""
    write_rows(folder / "part-1.jsonl", first)
    write_rows(folder / "part-2.jsonl", second)
    assert lines_of(report_on(str(folder)), "empty_responses") == ["part-2.jsonl:2"]


def test_rows_are_measured_with_the_tokenizer(tmp_path: Path, base_folder: Path) -> None:
    rows = clean_rows(30, words=4)
    rows[4]["output"] = "long " * 300
    rows[8]["input"] = "long " * 300
    held_out = write_rows(tmp_path / "b.jsonl", clean_rows(10, seed=1, words=4))
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), held_out, base_folder, max_length=256)
    assert lines_of(report, "truncated_rows") == ["a.jsonl:5", "a.jsonl:9"]
    assert lines_of(report, "truncated_responses") == ["a.jsonl:9"]
    assert report.statistics["train_tokens_max"] > 256 >= report.statistics["train_tokens_p50"]


def test_rows_are_cut_at_the_models_own_limit_too(tmp_path: Path, base_folder: Path) -> None:
    rows = clean_rows(30, words=4)
    rows[4]["output"] = "long " * 300
    path, model = write_rows(tmp_path / "a.jsonl", rows), Path(shutil.copytree(base_folder, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 256}))
    report = report_on(path, model=model, max_length=4096)
    assert lines_of(report, "truncated_rows") == ["a.jsonl:5"]
    assert "rows are longer than the 256 tokens that the model takes" in finding(report, "truncated_rows").message
    short = finding(report_on(path, model=model, max_length=200), "truncated_rows")
    assert "rows are longer than max_length" in short.message


def test_truncation_agrees_with_training(tmp_path: Path, base_folder: Path) -> None:
    from trainer.data.row_encoding import Encoder, EncoderSettings
    from trainer.data.rows import read_rows
    from trainer.data.tokenizer import load_tokenizer

    path = write_rows(tmp_path / "a.jsonl", clean_rows(50, words=30))
    tokenizer = load_tokenizer(str(base_folder))
    whole = list(Encoder(tokenizer, EncoderSettings("response", 10_000)).encode(read_rows(path)))
    border = sorted(int(row.spans[0]) for row in whole)[25]
    cut = list(Encoder(tokenizer, EncoderSettings("response", border)).encode(read_rows(path)))
    lost = sum(not len(row.spans) for row in cut)
    report = report_on(path, model=base_folder, max_length=border)
    assert 20 <= lost <= 30
    assert finding(report, "truncated_responses").rows == lost
    assert finding(report, "truncated_rows").rows == sum(len(row.ids) > border for row in whole)


@pytest.mark.parametrize(("kind", "text"), TOKENS.items())
def test_secrets_are_recognized_and_masked(kind: str, text: str) -> None:
    around = f"set it to {text}, then go on"
    assert kinds_of(around, SECRETS) == {kind}
    assert masked(around) == f"set it to [{kind}], then go on"


@pytest.mark.parametrize(("kind", "text"), PRIVATE.items())
def test_personal_data_are_recognized_and_masked(kind: str, text: str) -> None:
    around = f"set it to {text}, then go on"
    assert kinds_of(around, PERSONAL_DATA) == {kind}
    assert masked(around) == f"set it to [{kind}], then go on"


@pytest.mark.parametrize(
    "text",
    [
        "write to someone@example.com or call 555-123-4567",
        "AKIAIOSFODNN7EXAMPLE",
        "postgres://user:password@localhost/db",
        "the task-oriented risk-averse disk-based design",
        "git@github.com is a host, @mention is not",
        "between 1914-1918 and 2024-01-31, about 12 345 678 people",
        "4539 1488 0343 6468 fails the check digit",
        "pi is 3.14159265358979323846",
        "DE00 3704 0044 0532 0130 00",
        "sk-learn-contrib/imbalanced-learn",
    ],
)
def test_what_only_looks_private_is_left_alone(text: str) -> None:
    assert kinds_of(text, SECRETS + PERSONAL_DATA) == set()


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("as an ai language model, i do not have opinions.", True),
        ("i cannot assist with that.", True),
        ("i’m sorry, but i can't do that", True),
        ("sorry means to feel regret.", False),
        ("i am sorry for your loss; here is a letter: dear anna", False),
        ("he could not help with that", False),
        ("cannot is written as one word", False),
    ],
)
def test_refusals(response: str, expected: bool) -> None:
    assert is_refusal(response) is expected


def test_a_chat_is_judged_by_what_the_assistant_says(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Never say: as an AI language model, I cannot help with that."},
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ]
        }
        for row in clean_rows(20)
    ]
    rows[5]["messages"][2]["content"] = "As an AI language model, I cannot help with that."
    report = report_on(write_rows(tmp_path / "a.jsonl", rows))
    assert lines_of(report, "refusals") == ["a.jsonl:6"]


def test_a_row_that_the_chat_template_refuses_is_unreadable(tmp_path: Path, base_folder: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(base_folder, folder)
    template = (
        "{% if messages[0]['content'] == 'no' %}{{ raise_exception('not this one') }}{% endif %}"
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    turns = [[row["instruction"], row["output"]] for row in clean_rows(12)]
    turns[7][0] = "no"
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in turns
    ]
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), model=folder)
    assert lines_of(report, "unreadable_rows") == ["a.jsonl:8"]
    assert "not this one" in finding(report, "unreadable_rows").message
    assert report.statistics["train_tokens_p50"] > 10


def test_long_runs_and_words_of_other_scripts(tmp_path: Path) -> None:
    import random

    rows = clean_rows(20)
    rows[2]["output"] = "a" + "h" * 80
    rows[5]["output"] = "猫は魚を食べる。" * 12
    rows[8]["output"] = "猫は魚を食べるが、犬は肉を食べ、鳥は種を食べて空を飛ぶことができる。"
    rows[11]["output"] = "-" * 200 + sentence(random.Random(1), 9)
    report = report_on(write_rows(tmp_path / "a.jsonl", rows))
    assert lines_of(report, "repetition") == ["a.jsonl:3", "a.jsonl:6"]
