"""Tokenized data on disk: made once, right whoever makes them, mapped instead of read."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.data import shards, token_cache
from trainer.data.row_encoding import Encoded, Encoder, EncoderSettings
from trainer.data.rows import read_rows
from trainer.data.shards import TokenTable, read_shard, write_shard
from trainer.data.token_cache import TokenCache, TokenCacheError
from trainer.spec import DataSpec

SPEC = DataSpec(train="t")


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_folder)
    return loaded


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"cat {n}", "completion": " dog" * (n % 5)}) + "\n" for n in range(300))
    )
    return path


def all_rows(table: TokenTable) -> list[tuple[list[int], list[int]]]:
    return [(row.ids.tolist(), row.spans.tolist()) for row in map(table.row, range(len(table)))]


def test_a_table_holds_what_the_encoder_says(tmp_path: Path, rows: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    expected = list(Encoder(tokenizer, EncoderSettings("response", 12)).encode(read_rows(rows)))
    table = TokenCache(tmp_path / "cache", 1).table(str(rows), SPEC, 12, tokenizer)
    assert all_rows(table) == [(row.ids.tolist(), row.spans.tolist()) for row in expected]
    chosen = np.array([299, 0, 7, 7])
    assert table.lengths(chosen).tolist() == [len(expected[index].ids) for index in chosen]
    assert table.learnable.tolist() == [len(row.spans) > 0 for row in expected]


def test_shards_are_arrow_files_that_datasets_opens_and_numpy_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_CHUNK_ROWS", 3)
    encoded = [Encoded(np.arange(n, dtype=np.int32), np.array([1, n] * (n > 1), dtype=np.int32)) for n in range(8)]
    size = write_shard(tmp_path / "a.arrow", iter(encoded))
    assert (size.rows, size.tokens) == (8, sum(range(8)))
    assert Dataset.from_file(str(tmp_path / "a.arrow"))["ids"][5] == list(range(5))
    chunks = read_shard(tmp_path / "a.arrow")
    assert [len(chunk) for chunk in chunks] == [3, 3, 2]
    assert not any(
        array.flags.owndata or array.flags.writeable for chunk in chunks for array in (chunk.ids, chunk.spans)
    )
    assert all_rows(TokenTable(chunks)) == [(row.ids.tolist(), row.spans.tolist()) for row in encoded]


def test_a_hit_tokenizes_nothing(
    tmp_path: Path, rows: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TokenCache(tmp_path / "cache", 1)
    first = all_rows(cache.table(str(rows), SPEC, 64, tokenizer))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}

    def never(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(token_cache, "tokenize_here", never)
    assert all_rows(TokenCache(tmp_path / "cache", 1).table(str(rows), SPEC, 64, tokenizer)) == first
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(rows.read_bytes())
    cache.table(str(copy), SPEC, 64, tokenizer)
    assert files.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}.items()
    for changed in (SPEC.model_copy(update={"learn": "all"}), SPEC.model_copy(update={"format": "prompt_completion"})):
        with pytest.raises(AssertionError, match="again"):
            cache.table(str(rows), changed, 64, tokenizer)
    with pytest.raises(AssertionError, match="again"):
        cache.table(str(rows), SPEC, 65, tokenizer)


def test_a_digest_is_computed_once_for_all_processes(tmp_path: Path, rows: Path) -> None:
    code = (
        "import sys, hashlib, pathlib; from trainer.data.fingerprint import data_digest; "
        "hashlib.file_digest = None if sys.argv[3] == 'known' else hashlib.file_digest; "
        "print(data_digest(sys.argv[1], pathlib.Path(sys.argv[2])))"
    )

    def digest(word: str) -> str:
        return subprocess.check_output(
            [sys.executable, "-c", code, str(rows), str(tmp_path / "cache"), word], text=True
        ).strip()

    first = digest("new")
    assert first == hashlib.sha256(rows.read_bytes()).hexdigest()
    assert digest("known") == first
    rows.write_text(rows.read_text().replace("cat 7", "cow 7"))
    assert digest("new") == hashlib.sha256(rows.read_bytes()).hexdigest() != first


def test_a_damaged_entry_is_made_again(tmp_path: Path, rows: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    cache = TokenCache(tmp_path / "cache", 1)
    expected = all_rows(cache.table(str(rows), SPEC, 64, tokenizer))
    (shard,) = (tmp_path / "cache").rglob("*.arrow")
    for damage in (
        lambda: shard.write_bytes(shard.read_bytes()[:-9]),
        lambda: (shard.parent / "manifest.json").unlink(),
    ):
        damage()
        assert all_rows(cache.table(str(rows), SPEC, 64, tokenizer)) == expected
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_processes_make_the_same_bytes(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "_PART_BYTES", 1000)
    monkeypatch.setattr(token_cache, "_PARALLEL_BYTES", 0)
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"cat {n}", "completion": " dog" * (n % 5)}) + "\n" for n in range(99))
    )
    contents = []
    for processes in (1, 2):
        folder = tmp_path / f"cache{processes}"
        assert len(TokenCache(folder, processes).table(str(path), SPEC, 64, tokenizer)) == 99
        contents.append({file.name: file.read_bytes() for file in folder.rglob("*.arrow")})
    assert len(contents[0]) > 3
    assert contents[0] == contents[1]
    assert not [path for path in (tmp_path / "cache2").iterdir() if path.name.startswith(".")]


def test_two_workers_at_once_tokenize_once(tmp_path: Path, rows: Path, base_folder: Path) -> None:
    """Both get every row; the second waits for the first, as the time at which it tokenized says."""
    code = (
        "import sys, pathlib; from transformers import AutoTokenizer; from trainer.data import token_cache; "
        "from trainer.spec import DataSpec; made = []; make = token_cache.tokenize_here; "
        "token_cache.tokenize_here = lambda *given: (made.append(1), make(*given))[1]; "
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1]); print('here', flush=True); sys.stdin.readline(); "
        "cache = token_cache.TokenCache(pathlib.Path(sys.argv[3]), 1); "
        "print(len(made), len(cache.table(sys.argv[2], DataSpec(train='t'), 64, tokenizer)), len(made))"
    )
    command = [sys.executable, "-c", code, str(base_folder), str(rows), str(tmp_path / "cache")]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "here\n"
    results = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        results.append(racer.communicate(timeout=60)[0].split())
    assert sorted(results) == [["0", "300", "0"], ["0", "300", "1"]]


def test_losing_the_race_without_a_lock_is_right_too(tmp_path: Path) -> None:
    def entry(name: str, tokens: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        size = write_shard(
            folder / "shard-000000.arrow", [Encoded(np.arange(tokens, dtype=np.int32), np.zeros(0, np.int32))]
        )
        token_cache._write_manifest(folder, [size])
        return folder

    target = tmp_path / "target"
    token_cache._publish(entry("first", 3), target)
    token_cache._publish(entry("second", 4), target)
    table = token_cache._open(target)
    assert table is not None
    assert table.row(0).ids.tolist() == [0, 1, 2]


def test_what_a_killed_process_left_goes(
    tmp_path: Path, rows: Path, base_folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    code = (
        "import os, sys, pathlib; from transformers import AutoTokenizer; from trainer.data import token_cache; "
        "from trainer.spec import DataSpec; token_cache._write_manifest = lambda *_: os._exit(9); "
        "token_cache.TokenCache(pathlib.Path(sys.argv[3]), 1).table("
        "sys.argv[2], DataSpec(train='t'), 64, AutoTokenizer.from_pretrained(sys.argv[1]))"
    )
    folder = tmp_path / "cache"
    assert subprocess.run([sys.executable, "-c", code, str(base_folder), str(rows), str(folder)]).returncode == 9
    assert len(hidden(folder)) == 1
    of_others, at_work = folder / f".{'0' * 64}.left", folder / f".{'1' * 64}.left"
    of_others.mkdir()
    at_work.mkdir()
    with token_cache._locked(folder, "1" * 64):
        assert len(TokenCache(folder, 1).table(str(rows), SPEC, 64, tokenizer)) == 300
    assert hidden(folder) == [at_work]


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_nobody_used_for_a_month_goes(tmp_path: Path, rows: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    cache = TokenCache(tmp_path, 1)
    tables = [cache.table(str(rows), SPEC, length, tokenizer) for length in (40, 41, 42)]
    entries = [tmp_path / cache.fingerprint(str(rows), SPEC, length, tokenizer) for length in (40, 41, 42)]
    long_ago = time.time() - 31 * 24 * 3600
    for entry in entries[:2]:
        os.utime(entry, (long_ago, long_ago))
    expected = all_rows(tables[0])
    cache.table(str(rows), SPEC, 41, tokenizer)
    cache.table(str(rows), SPEC, 43, tokenizer)
    assert [entry.is_dir() for entry in entries] == [False, True, True]
    assert all_rows(tables[0]) == expected


def test_a_folder_that_cannot_be_used(tmp_path: Path, rows: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenCacheError, match="--token-cache"):
        TokenCache(tmp_path / "file" / "cache", 1).table(str(rows), SPEC, 64, tokenizer)
