"""What a user brings along: rows in a format and files of his own, a spec, a config of his team's."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.e2e.service import ROOT
from tests.journeys.rows import Row

WORDNET = ROOT / "examples" / "wordnet-instruct"
TRAIN_ROWS, EVAL_ROWS, TEST_ROWS = 112, 32, 24
TRIALS, MORE_TRIALS = 6, 8
WIDER_RANKS = [2, 4, 8, 16]
_SHARDS = 3
Json = dict[str, Any]

_ADAPTERS: dict[str, Json] = {
    "plain": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "loraplus": {"loraplus_lr_ratio": {"choices": [1, 4, 16]}},
}
TEAM_FILE = """\
# Training of the support bot. Ask in #ml-platform before you change what is above the line.
base_model: org/support-8b   # pinned
datasets:
    - path: s3://bucket/support/rows.jsonl
      type: chat_template   # ours
sequence_len: 2048

# --- what the search may set ---
learning_rate: 0.0005
lora_r: 16
lora_alpha: 32
optimizer: adamw_torch
wandb: {project: support, tags: ['weekly', "lora"]}
"""


def spec(row: Row, name: str, folder: Path, past: str) -> Json:
    """The study of a row, with its files below `folder`. `past` is the study that `warm_start: named` names."""
    (folder / "data").mkdir(parents=True)
    train = _rows("train", slice(TRAIN_ROWS)), _rows("eval", slice(EVAL_ROWS))
    data: Json = {"max_length": 96, "packing": row.packing}
    for part, rows in zip(("train", "eval"), train, strict=True):
        data[part] = _save(row, folder / "data", part, rows)
    if row.test_rows:
        data["test"] = _save(row, folder / "data", "test", _rows("eval", slice(EVAL_ROWS, EVAL_ROWS + TEST_ROWS)))
    written: Json = {
        "metadata": {"name": name},
        "model": {"path": "examples/tiny-llama"},
        "data": data,
        "space": {
            "learning_rate": {"low": 2e-4, "high": 3e-2, "log": True},
            "lora_r": {"choices": [4, 8, 16]},
            "lora_alpha": {"expr": "2 * lora_r"},
            "lora_dropout": {"low": 0.0, "high": 0.2},
            "lr_scheduler": {"choices": ["cosine", "linear"]},
            "effective_batch": 8,
            **_ADAPTERS[row.adapter],
        },
        "baseline": {"learning_rate": 5e-4, "lora_r": 8, "lora_dropout": 0.0, "lr_scheduler": "cosine"},
        "enqueue": [{"learning_rate": 0.004321, "lora_r": 4}],
        "training": {"activation_checkpointing": row.checkpointing},
        "search": {"strategy": row.strategy, "seed": 5, "warm_start": [past] if row.warm_start == "named" else "off"},
        "budget": {"max_trials": TRIALS},
    }
    if row.warm_start == "auto":
        written["search"]["warm_start"] = "auto"
    if row.sampler != "own":
        written["search"]["sampler"] = row.sampler
    if row.objectives == 2:
        written["search"]["objectives"] = ["eval_loss", "adapter_parameters"]
    if row.confirm:
        written["confirm"] = {"top": 1, "seeds": 2, "share": 1.0}
    return written


def _rows(part: str, which: slice) -> list[Json]:
    lines = (WORDNET / f"{part}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[which]]


def _as(format: str, row: Json) -> Json:
    asked = f"{row['instruction']}\n{row['input']}" if row.get("input") else row["instruction"]
    match format:
        case "alpaca":
            return {key: row.get(key, "") for key in ("instruction", "input", "output")}
        case "prompt_completion":
            return {"prompt": f"{asked}\n", "completion": row["output"]}
        case "chat":
            turns = [("user", asked), ("assistant", row["output"])]
            return {"messages": [{"role": role, "content": said} for role, said in turns], "origin": "support"}
        case "sharegpt":
            return {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": row["output"]}]}
        case _:
            return {"text": f"{asked}\n{row['output']}"}


def _save(row: Row, folder: Path, part: str, rows: Sequence[Json]) -> str:
    made = [_as(row.rows, one) for one in rows]
    path = folder / (part if row.files == "folder" else f"{part}.{row.files}")
    if row.files == "parquet":
        pq.write_table(pa.Table.from_pylist(made), path)
    elif row.files == "jsonl.gz":
        path.write_bytes(gzip.compress(_lines(made).encode()))
    elif row.files == "jsonl":
        path.write_text(_lines(made))
    else:
        path.mkdir()
        for shard in range(_SHARDS):
            (path / f"part-{shard}.jsonl").write_text(_lines(made[shard::_SHARDS]))
    return str(path)


def _lines(rows: Sequence[Json]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)
