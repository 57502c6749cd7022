"""The model's tokenizer without torch, read from its `tokenizer.json`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tokenizers import Tokenizer

from trainer.common.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILE = "tokenizer.json"


def has_fast_tokenizer(model: str) -> bool:
    """Whether a model folder has a `tokenizer.json`. Raises UserError if there is no such folder."""
    if not Path(model).is_dir():
        raise UserError(f"model {model} is not a folder on this machine")
    return (Path(model) / _FILE).is_file()


def plain_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """As much of a tokenizer as `Encoder` needs for rows that are no chats, in half the time of transformers'.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return cast("PreTrainedTokenizerBase", _PlainTokenizer(Path(model)))
    except Exception as error:  # the only type that the tokenizers library raises
        raise _unloadable(model, error) from error


def chat_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """A tokenizer with the model's chat template. Importing transformers for it takes 1 s of CPU time.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unloadable(model, error) from error
    return tokenizer


class _PlainTokenizer:
    """Token ids of texts, and the id of the end-of-sequence token, None if the model names none."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / _FILE))
        # What a folder says about truncation and padding is for inference.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.eos_token_id = next((self._tokenizer.token_to_id(token) for token in _end_tokens(folder)), None)

    def __call__(self, texts: str | list[str], add_special_tokens: bool = True, **_: bool) -> dict[str, Any]:
        batch = [texts] if isinstance(texts, str) else texts
        encoded = self._tokenizer.encode_batch_fast(batch, add_special_tokens=add_special_tokens)
        ids = [encoding.ids for encoding in encoded]
        return {"input_ids": ids[0] if isinstance(texts, str) else ids}


def _end_tokens(folder: Path) -> list[str]:
    found = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            token = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token")
            found.append(token.get("content") if isinstance(token, dict) else token)
    return [token for token in found if isinstance(token, str)]


def _unloadable(model: str, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"the tokenizer of {model} cannot be loaded: {reason}")
