"""Many rows: memory does not grow with their number, and several processes say what is wrong as one does."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from trainer.data import token_cache
from trainer.data.rows import RowError
from trainer.data.token_cache import TokenCache
from trainer.spec import DataSpec

ROWS = 150_000
MODEL = Path(__file__).parents[3] / "examples/tiny-llama"

PROGRAM = """
import json, sys
from pathlib import Path
import numpy, torch
from transformers import AutoTokenizer
from trainer.data.dataset import DataCache
from trainer.data.token_cache import TokenCache
from trainer.spec import DataSpec

model, small, large, folder = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
def status(key):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) * 1024
cache = TokenCache(Path(folder), 1)
spec = DataSpec(train=large, eval_fraction=0.01)
cache.table(small, spec, 512, tokenizer)
peak, anonymous = status("VmHWM"), status("RssAnon")
cache.table(large, spec, 512, tokenizer)
peak = status("VmHWM") - peak
data = DataCache(tokenizer, cache).load(spec, 512)
for start in range(0, 2000, 8):
    data.train.batch(numpy.arange(start, start + 8) * (len(data.train) // 2010), torch.device("cpu"))
rows = len(data.train) + len(data.evaluation)
print(json.dumps({"rows": rows, "tokenizing": peak, "reading": status("RssAnon") - anonymous}))
"""


@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    draw = random.Random(1)
    words = ["river", "stone", "light", "under", "over", "small", "tree"]
    lines = [json.dumps({"prompt": "say", "completion": " ".join(draw.choices(words, k=80))}) for _ in range(1000)]
    files = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    for path, rows in zip(files, (20_000, ROWS), strict=True):
        with path.open("w") as file:
            for number in range(rows):
                file.write(lines[number % len(lines)] + "\n")
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", PROGRAM, str(MODEL), *map(str, files), str(cache)]
    answer = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    assert answer["rows"] == ROWS
    written = sum(shard.stat().st_size for shard in cache.rglob("*.arrow"))
    assert written > 50_000_000, answer
    # Pages of the mapped files that batches touched are the page cache's and do not count as anonymous.
    assert answer["tokenizing"] < 0.4 * written
    assert answer["reading"] < 0.4 * written


def test_processes_name_the_first_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "_PART_BYTES", 1000)
    monkeypatch.setattr(token_cache, "_PARALLEL_BYTES", 0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    lines = [json.dumps({"prompt": f"cat {number}", "completion": " dog"}) for number in range(99)]
    lines[59] = lines[89] = '{"prompt": 3}'
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    for processes in (1, 2):
        with pytest.raises(RowError, match="line 60: `prompt` must be a string"):
            TokenCache(tmp_path / "cache", processes).table(str(path), DataSpec(train="t"), 64, tokenizer)
    assert not [left for left in (tmp_path / "cache").iterdir() if left.is_dir() and left.name.startswith(".")]
