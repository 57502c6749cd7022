"""The committed example data and base model: what their cards promise."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BOY = (
    "10305802 18 n 02 male_child 0 boy 0 003 @ 10287213 n 0000 + 01535709 a 0202 ~ 09826204 n 0000 "
    '| a youthful male person; "the baby was a boy"; "she made the boy brush his teeth"  '
)


def rows(name: str) -> list[dict[str, str]]:
    lines = (EXAMPLES / "wordnet-instruct" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def wordnet() -> ModuleType:
    path = EXAMPLES / "wordnet-instruct" / "wordnet.py"
    spec = importlib.util.spec_from_file_location("wordnet_example", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_synset_line_is_read_as_its_manual_page_says(wordnet: ModuleType) -> None:
    synset = wordnet.parse_synset(BOY, "noun")
    assert synset.key == "n10305802"
    assert synset.words == ("male child", "boy")
    assert synset.definition == "a youthful male person"
    assert synset.examples == ("the baby was a boy", "she made the boy brush his teeth")
    assert synset.hypernyms == ("n10287213",)


def test_sides_have_their_shares(wordnet: ModuleType) -> None:
    def side(number: int) -> str:
        synset = wordnet.Synset(f"n{number:08}", "noun", ("w",), "d", (), ())
        return str(synset.side)

    sides = [side(number) for number in range(5000)]
    assert sides.count("eval") / 5000 == pytest.approx(0.04, abs=0.01)
    assert sides.count("train") / 5000 == pytest.approx(0.48, abs=0.03)


@pytest.mark.parametrize(("name", "count"), [("train", 4000), ("eval", 400)])
def test_rows_are_complete_and_short(name: str, count: int) -> None:
    found = rows(name)
    assert len(found) == count
    assert all(set(row) == {"instruction", "input", "output"} for row in found)
    assert all(row["instruction"] and 0 < len(row["output"]) <= 90 and len(row["input"]) <= 100 for row in found)


def test_no_prompt_is_on_both_sides() -> None:
    train = {(row["instruction"], row["input"]) for row in rows("train")}
    assert not train & {(row["instruction"], row["input"]) for row in rows("eval")}


def test_base_model_tokenizer_reads_text_as_sentencepiece_does() -> None:
    transformers = pytest.importorskip("transformers")
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = EXAMPLES / "tiny-llama"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert special == (reference.bos_id(), reference.eos_id(), reference.pad_id()) == (1, 2, 3)
    for text in [*(row["output"] for row in rows("eval")), " led", "two  spaces", "a\n\nb", "naïve 漢字 🙂", ""]:
        ids = tokenizer(text).input_ids
        assert ids == reference.encode(text, add_bos=True)
        assert tokenizer.decode(ids[1:]) == text
