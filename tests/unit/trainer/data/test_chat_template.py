"""Chats: which tokens are the assistant's, by hand-written expectation."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.common.errors import UserError
from trainer.data.row_encoding import Encoded, Encoder, EncoderSettings
from trainer.data.rows import RowError, scan_rows

TURNS = ["user cat", "assistant dog tree", "user river", "assistant stone"]

PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.role == 'assistant' %}</s>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
MARKED = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}</s>{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
)
MARKED_WITH_END = MARKED.replace("{% endgeneration %}</s>", "</s>{% endgeneration %}")
NO_END = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
UNSTABLE = (
    "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}{{ m.role }}: {{ m.content }}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def tokenizer(base_folder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_folder)
    return loaded


def write(folder: Path, *chats: list[str]) -> Path:
    rows = [{"messages": [{"role": t.split()[0], "content": t.partition(" ")[2]} for t in turns]} for turns in chats]
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def encode(path: Path, tokenizer: PreTrainedTokenizerBase, template: str | None, **settings: Any) -> Encoded:
    tokenizer.chat_template = template
    values = EncoderSettings(**{"learn": "response", "max_length": 128, **settings})
    return next(Encoder(tokenizer, values).encode(scan_rows(path)))


def learned(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    spans = encoded.spans.reshape(-1, 2)
    return [str(tokenizer.decode(encoded.ids[start:stop].tolist())) for start, stop in spans]


@pytest.mark.parametrize(
    ("template", "text", "turns"),
    [
        (
            PLAIN,
            "<s>user: cat\nassistant: dog tree</s>\nuser: river\nassistant: stone</s>",
            [" dog tree</s>", " stone</s>"],
        ),
        (
            MARKED,
            "<s>user: cat\nassistant: dog tree</s>\nuser: river\nassistant: stone</s>",
            [" dog tree</s>", " stone</s>"],
        ),
        (
            MARKED_WITH_END,
            "<s>user: cat\nassistant: dog tree</s>\nuser: river\nassistant: stone</s>",
            [" dog tree</s>", " stone</s>"],
        ),
        (NO_END, "[user]cat\n[assistant]dog tree\n[user]river\n[assistant]stone\n</s>", ["dog tree\n", "stone\n</s>"]),
    ],
)
def test_every_turn_of_the_assistant_is_learned_with_its_end(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, template: str, text: str, turns: list[str]
) -> None:
    encoded = encode(write(tmp_path, TURNS), tokenizer, template)
    assert tokenizer.decode(encoded.ids.tolist()) == text
    assert learned(encoded, tokenizer) == turns


def test_the_whole_mask_of_a_small_chat(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(write(tmp_path, ["user a", "assistant b", "user c", "assistant d"]), tokenizer, PLAIN)
    prompt = tokenizer("<s>user: a\nassistant:", add_special_tokens=False)["input_ids"]
    again = tokenizer("\nuser: c\nassistant:", add_special_tokens=False)["input_ids"]
    b, d = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" b", " d"))
    end = tokenizer.eos_token_id
    assert encoded.ids.tolist() == [*prompt, *b, end, *again, *d, end]
    first = (len(prompt), len(prompt) + len(b) + 1)
    second = (first[1] + len(again), first[1] + len(again) + len(d) + 1)
    assert encoded.spans.tolist() == [*first, *second]


def test_the_prompt_has_the_tokens_it_has_when_the_model_is_asked(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The space before ` Response` belongs to the prompt, but in the whole text it is part of one token."""
    template = (
        "{% for m in messages %}{{ m.role }} ###{{ ' ' if m.role == 'assistant' }}{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant ### {% endif %}"
    )
    answers = ["Response:", "Instruction:"]
    turns = ["user cat", f"assistant {answers[0]}", "user dog", f"assistant {answers[1]}"]
    encoded = encode(write(tmp_path, turns), tokenizer, template)
    assert learned(encoded, tokenizer) == [f"{answer}</s>" for answer in answers]
    prompt = tokenizer("user ###cat</s>assistant ### ", add_special_tokens=False)["input_ids"]
    assert encoded.ids[: encoded.spans[0]].tolist() == prompt
    assert (
        prompt
        != tokenizer("user ###cat</s>assistant ### Response:", add_special_tokens=False)["input_ids"][: len(prompt)]
    )


def test_learning_all_tokens_but_the_first(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(write(tmp_path, TURNS), tokenizer, PLAIN, learn="all")
    assert encoded.spans.tolist() == [1, len(encoded.ids)]


def test_a_cut_leaves_the_turns_before_it(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    whole = encode(write(tmp_path, TURNS), tokenizer, PLAIN)
    first_stop = int(whole.spans[1])
    cut = encode(write(tmp_path, TURNS), tokenizer, PLAIN, max_length=first_stop + 2)
    assert cut.spans.tolist() == whole.spans.tolist()[:2]
    assert len(cut.ids) == first_stop + 2
    inside = encode(write(tmp_path, TURNS), tokenizer, PLAIN, max_length=first_stop - 1)
    assert inside.spans.tolist() == [whole.spans[0], first_stop - 1]


@pytest.mark.parametrize(
    ("template", "error", "problem"),
    [
        (None, UserError, "has no chat template.*prompt_completion"),
        (UNSTABLE, RowError, "line 1: .*renders earlier turns differently.*single turns"),
        ("{{ raise_exception('no user may speak') }}", RowError, "line 1: .*refuses it: no user may speak"),
        ("{% if false %}{% generation %}{% endgeneration %}{% endif %}x", RowError, "line 1: .*are empty for it"),
    ],
)
def test_templates_that_cannot_be_used(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, template: str | None, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        encode(write(tmp_path, TURNS), tokenizer, template)


def test_text_and_completions_need_no_template(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "cat dog"}) + "\n")
    encoded = encode(path, tokenizer, None)
    assert tokenizer.decode(encoded.ids.tolist()) == "cat dog</s>"
    assert encoded.spans.tolist() == [1, len(encoded.ids)]
    path.write_text(json.dumps({"prompt": "cat", "completion": " dog"}) + "\n")
    assert learned(encode(path, tokenizer, None), tokenizer) == [" dog</s>"]
