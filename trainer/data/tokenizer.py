"""The base model's tokenizer: loading it from a local folder, and its identity."""

import hashlib
import json
from pathlib import Path

import tokenizers
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.common.errors import UserError
from trainer.common.model_files import TOKENIZER_FILES


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder. Raises UserError."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the tokenizer of {path} cannot be loaded: {reason}") from error
    return tokenizer


def tokenizer_digest(folder: str) -> str:
    """SHA-256 over the files that decide what a model folder's tokenizer does, and the libraries' versions.

    Raises:
        UserError: a file cannot be read.
    """
    root = Path(folder)
    found = {path for pattern in TOKENIZER_FILES for path in root.glob(pattern) if path.is_file()}
    try:
        files = [(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(found)]
    except OSError as error:
        raise UserError(f"the tokenizer of {folder} cannot be read: {error.strerror or error}") from error
    identity = [files, transformers.__version__, tokenizers.__version__]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()
