"""Every wrong spec is answered with exactly these sentences, all in one answer, before anything runs."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpo_service.core.errors import InvalidSpec
from hpo_service.services.studies.examination import examine
from hpo_service.spec.presets import PRESETS
from hpo_service.spec.runnable import Fleet
from tests import serving

EXAMPLES = Path(__file__).parents[4] / "examples"
NOW = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
NOBODY = Fleet(now=NOW)
CPU = Fleet(
    now=NOW, workers=2, devices=2, models=("AMD EPYC, 1 threads",), executor="local", cuda=False, bitsandbytes=None
)
GPU = Fleet(now=NOW, workers=4, devices=4, models=("NVIDIA H100",), executor="ray", cuda=True, bitsandbytes=True)
PLAIN_GPU = Fleet(now=NOW, workers=1, devices=1, models=("NVIDIA L4",), executor="local", cuda=True, bitsandbytes=False)
RATE = {"low": 1e-5, "high": 1e-2, "log": True}
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
HAS = "It has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj; or write all-linear, attention, mlp."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A llama of one layer as far as its headers go, and rows."""
    folder = tmp_path.resolve() / "files"
    serving.make_inputs(folder)
    (folder / "model" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 1024}')
    parts = {"self_attn": LLAMA[0], "mlp": LLAMA[1]}
    names = [f"model.layers.0.{part}.{name}.weight" for part, named in parts.items() for name in named]
    tensors = {name: {"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 0]} for name in (*names, "lm_head.weight")}
    header = json.dumps(tensors).encode()
    (folder / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    (folder / "rows.csv").write_text("prompt,completion\n")
    return folder


def spec(**changes: Any) -> dict[str, Any]:
    return serving.spec(**{"baseline": None, **changes})


def space(**forms: Any) -> dict[str, Any]:
    return {"space": {"learning_rate": RATE, **forms}}


def refused(root: Path, document: dict[str, Any], fleet: Fleet = NOBODY) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as caught:
        examine(document, [root], fleet)
    return [(problem.pointer, problem.detail) for problem in caught.value.problems]


CASES: dict[str, tuple[dict[str, Any], Fleet, str, str]] = {
    "a constant target module": (
        space(target_modules="q_prj,v_proj"),
        NOBODY,
        "/space/target_modules",
        f"the model (llama) has no target module 'q_prj'. Did you mean 'q_proj'? {HAS}",
    ),
    "a chosen target module": (
        space(target_modules={"choices": ["all-linear", "c_attn"]}),
        NOBODY,
        "/space/target_modules/choices/1",
        f"the model (llama) has no target module 'c_attn'. {HAS}",
    ),
    "a group among names": (
        space(target_modules="mlp,q_proj"),
        NOBODY,
        "/space/target_modules",
        f"the model (llama) has no target module 'mlp'. 'mlp' stands alone, not in a list of names. {HAS}",
    ),
    "nf4 on CPUs": (
        {"model": {"path": "model", "quantization": "nf4"}},
        CPU,
        "/model/quantization",
        "model.quantization nf4 needs a CUDA device, which none of the 2 workers has (AMD EPYC, 1 threads); write "
        "'none', or start workers that have it.",
    ),
    "nf4 without its package": (
        {"model": {"path": "model", "quantization": "nf4"}},
        PLAIN_GPU,
        "/model/quantization",
        "model.quantization nf4 needs the package bitsandbytes, which no worker has installed; write 'none', or start "
        "workers that have it.",
    ),
    "an 8-bit optimizer on CPUs": (
        space(optimizer={"choices": ["adamw", "paged_adamw_8bit"]}),
        CPU,
        "/space/optimizer/choices/1",
        "optimizer paged_adamw_8bit needs a CUDA device, which none of the 2 workers has (AMD EPYC, 1 threads); write "
        "'adamw', or start workers that have it.",
    ),
    "a deadline that is past": (
        {"budget": {"deadline": "2026-01-01T00:00:00Z"}, "search": {}},
        NOBODY,
        "/budget/deadline",
        "budget.deadline is 2026-01-01T00:00:00+00:00, which is past: now it is 2026-11-27T09:30:00Z; name a later "
        "time or leave it out.",
    ),
    "rows longer than the model reads": (
        {"data": {"train": "train.jsonl", "max_length": 4096}},
        NOBODY,
        "/data/max_length",
        "data.max_length is 4096, and the model reads rows of up to 1024 tokens (its configuration, stretched "
        "positions included); write 1024 or less.",
    ),
    "preference pairs": (
        {"data": {"train": "pairs.jsonl"}},
        NOBODY,
        "/data/train",
        "'pairs.jsonl', line 1: a row is a JSON object with one answer, this is a preference pair (`chosen` and "
        "`rejected`), which DPO trains on; here a row has one answer: write `chosen` as `completion` beside the "
        "`prompt` and drop `rejected`.",
    ),
    "a table": (
        {"data": {"train": "train.jsonl", "eval": "rows.csv"}},
        NOBODY,
        "/data/eval",
        "'rows.csv': it is a CSV file; rows are JSON lines or Parquet. Convert it: python -c \"import pandas; "
        "pandas.read_csv('rows.csv').to_json('rows.jsonl', orient='records', lines=True)\", with columns called prompt "
        "and completion, or instruction and output.",
    ),
    "another trainer's name in the space": (
        space(num_train_epochs={"choices": [1, 2]}),
        NOBODY,
        "/space/num_train_epochs",
        "'num_train_epochs' is Hugging Face's name; here it is space.epochs.",
    ),
    "another tool's form": (
        space(lora_r={"values": [8, 16]}),
        NOBODY,
        "/space/lora_r/values",
        "`values` is another tool's name in the form of lora_r; write lora_r: {choices: [8, 16]}.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_in_these_words(root: Path, case: str) -> None:
    changes, fleet, pointer, detail = CASES[case]
    assert refused(root, spec(**changes), fleet) == [(pointer, detail)]


def test_a_name_on_the_hub(root: Path) -> None:
    assert refused(root, spec(model={"path": "meta-llama/Llama-3.1-8B"})) == [
        (
            "/model/path",
            f"'meta-llama/Llama-3.1-8B' does not exist below {root}. If it is a name on the Hugging Face Hub: nothing "
            "is downloaded here, a folder is needed. Run hf download meta-llama/Llama-3.1-8B --local-dir "
            f"{root}/Llama-3.1-8B and write Llama-3.1-8B.",
        )
    ]
    ((pointer, detail),) = refused(root, spec(data={"train": "https://huggingface.co/datasets/tatsu-lab/alpaca"}))
    assert pointer == "/data/train"
    assert f"Run hf download tatsu-lab/alpaca --repo-type dataset --local-dir {root}/alpaca and write alpaca." in detail


def test_a_path_that_begins_above_a_root(root: Path) -> None:
    """`examples/tiny-llama` with the root `examples`: nothing has to be downloaded."""
    (root / "sub" / "there").mkdir(parents=True)
    ((pointer, detail),) = refused(root, spec(model={"path": "examples/sub/there"}))
    assert (pointer, detail) == (
        "/model/path",
        f"'examples/sub/there' does not exist below {root}. Paths begin below these folders: 'sub/there' does exist; "
        "write that.",
    )
    ((_, detail),) = refused(root, spec(model={"path": "examples/none"}))
    assert "hf download" in detail


WANTED = "name the folder of a model in Hugging Face layout: config.json, *.safetensors and the tokenizer."


@pytest.mark.parametrize(
    ("files", "written", "detail"),
    [
        ({"m.gguf": ""}, "m.gguf", f"'m.gguf' is a GGUF file, which is made for inference; {WANTED}"),
        ({"m.safetensors": ""}, "m.safetensors", f"'m.safetensors' is one file of weights; {WANTED}"),
        ({"m/a.gguf": ""}, "m", f"'m' holds GGUF files, which are made for inference; {WANTED}"),
        (
            {"m/adapter_config.json": '{"base_model_name_or_path": "org/base"}', "m/adapter_model.safetensors": ""},
            "m",
            "'m' is a PEFT adapter of 'org/base', not a model; name the folder of the base model, or of a model that "
            "the adapter was merged into.",
        ),
        ({"m/params.json": "{}"}, "m", f"'m' is in the layout of its maker (params.json, no config.json); {WANTED}"),
        (
            {"m/snapshots/abc/config.json": "{}"},
            "m",
            "'m' has no config.json, but 'snapshots/abc' below it has; name that folder.",
        ),
        ({"m/readme": ""}, "m", f"'m' has no config.json; {WANTED}"),
    ],
)
def test_what_is_no_model(root: Path, files: dict[str, str], written: str, detail: str) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    assert refused(root, spec(model={"path": written})) == [("/model/path", detail)]


def test_a_model_that_is_not_whole(root: Path) -> None:
    (root / "model" / "tokenizer.json").unlink()
    (root / "model" / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    assert refused(root, spec())[0][1] == (
        "'model' has no tokenizer (tokenizer.json, tokenizer.model or another vocabulary); copy it there from the "
        "model that this one was made from, with tokenizer_config.json."
    )
    (root / "model" / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert examine(spec(), [root], NOBODY).warnings == ()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (root / "model" / "model.safetensors").rename(root / "model" / "model-1.safetensors")
    (root / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused(root, spec())[0][1] == (
        "'model' lacks 'model-2.safetensors', which model.safetensors.index.json names (1 file(s) are missing); copy "
        "the model again."
    )


def test_modules_of_a_mixture_of_experts(root: Path) -> None:
    (root / "model" / "config.json").write_text('{"model_type": "mixtral"}')
    attention = {f"model.layers.0.self_attn.{name}.weight": {"shape": [4, 4]} for name in LLAMA[0]}
    experts = {f"model.layers.0.block_sparse_moe.experts.0.w{n}.weight": {"shape": [4, 4]} for n in (1, 2, 3)}
    header = json.dumps(attention | experts).encode()
    (root / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    has = "It has k_proj, o_proj, q_proj, v_proj"
    assert [detail for _, detail in refused(root, spec(**space(target_modules={"choices": ["mlp", "w1,w2"]})))] == [
        f"the model (mixtral) has no linear layer that target_modules 'mlp' means. {has}. Experts hold no adapters.",
        f"the model (mixtral) has no target modules 'w1', 'w2'. {has}; or write all-linear, attention. "
        "Experts hold no adapters.",
    ]


def test_a_model_without_linear_layers(root: Path) -> None:
    (root / "model" / "config.json").write_text('{"model_type": "gpt2"}')
    assert refused(root, spec()) == [
        (
            "/model/path",
            "the model's architecture, gpt2, has no linear layers that adapters can go on (its layers are of another "
            "kind, Conv1D); take another model.",
        )
    ]


def test_everything_comes_in_one_answer(root: Path) -> None:
    document = spec(
        **space(target_modules="q_prj", lora_r={"min": 4, "max": 8}),
        model={"path": "model", "quantization": "nf4", "dtyp": "bfloat16"},
        data={"train": "pairs.jsonl", "max_length": 4096},
        search={"strategy": "ahsa"},
        budget={"max_trials": 0, "deadline": "2026-01-01T00:00:00Z"},
        n_trials=3,
    )
    del document["metadata"]
    pointers = [pointer for pointer, _ in refused(root, document, CPU)]
    assert pointers == [
        "/metadata",
        "/model/dtyp",
        "/search/strategy",
        "/budget/max_trials",
        "/n_trials",
        "/budget/deadline",
        "/data/train",
        "/space/lora_r/min",
    ]
    document["space"]["lora_r"] = {"low": 4, "high": 8}
    assert [pointer for pointer, _ in refused(root, document, CPU)][-4:] == [
        "/data/train",
        "/data/max_length",
        "/space/target_modules",
        "/model/quantization",
    ]


def test_points_and_budget_are_judged_beside_the_rest(root: Path) -> None:
    document = spec(
        baseline={"lora_r": 5},
        enqueue=[{"lora_r": 4}, {"lora_r": 7}, {"learning_rate": 1}],
        budget={"max_trials": 6, "max_examples": 1},
        data={"train": "train.jsonl", "max_length": 2048},
    )
    assert [pointer for pointer, _ in refused(root, document)] == [
        "/data/max_length",
        "/baseline/lora_r",
        "/enqueue/1/lora_r",
        "/enqueue/2/learning_rate",
        "/budget/max_examples",
    ]


def test_a_space_that_reads_rows_is_not_blamed_for_rows_that_are_wrong(root: Path) -> None:
    document = spec(**space(epochs={"expr": "min(3, train_rows / 1000000)"}), data={"train": "pairs.jsonl"})
    assert [pointer for pointer, _ in refused(root, document)] == ["/data/train"]


@pytest.mark.parametrize(
    ("changes", "fleet", "warning"),
    [
        (
            {"model": {"path": "model", "quantization": "nf4"}},
            NOBODY,
            "model.quantization nf4 needs a CUDA device and bitsandbytes, and no worker is known; without, trials "
            "fail.",
        ),
        (
            {"resources": {"gpus_per_trial": 8}},
            GPU,
            "resources.gpus_per_trial is 8, and the 4 workers occupied 4 device(s) in all when this was checked: it "
            "waits until there are more.",
        ),
        (
            {"resources": {"gpus_per_trial": 8}},
            PLAIN_GPU,
            "resources.gpus_per_trial is 8, and the one worker occupied 1 device(s) in all when this was checked: it "
            "waits until there are more (HPO_WORKERS).",
        ),
    ],
)
def test_what_may_still_come_is_a_warning(root: Path, changes: dict[str, Any], fleet: Fleet, warning: str) -> None:
    assert examine(spec(**changes), [root], fleet).warnings == (warning,)


def test_a_length_that_nobody_wrote_is_no_mistake(root: Path) -> None:
    (root / "model" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 256}')
    assert examine(spec(), [root], NOBODY).warnings == (
        "rows are cut at 256 tokens, the most that the model reads; data.max_length, which nobody wrote, is 512.",
    )


def test_modules_that_only_a_worker_knows(root: Path) -> None:
    (root / "model" / "config.json").write_text('{"model_type": "brand_new"}')
    wanted = space(target_modules={"choices": ["q_prj", "all-linear"]})
    examined = examine(spec(**wanted), [root], NOBODY)
    assert (examined.unknown_targets, examined.warnings) == (("all-linear", "q_prj"), ())
    assert examine(spec(**wanted, data_checks={"enabled": False}), [root], NOBODY).warnings == (
        "whether the model has the target modules all-linear, q_prj is not known before the first trial: its "
        "architecture (brand_new) is only known to workers, and data_checks.enabled is false.",
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_accepted_where_they_can_run(root: Path, preset: str) -> None:
    document = spec(preset=preset, space={}, search={}, budget={})
    fleet = Fleet(now=NOW, workers=8, devices=8, models=("NVIDIA H100",), executor="ray", cuda=True, bitsandbytes=True)
    assert examine(document, [root], fleet).warnings == ()
    examine(document, [root], NOBODY)
    if preset == "qlora":
        assert [pointer for pointer, _ in refused(root, document, CPU)] == ["/model/quantization", "/space/optimizer"]


@pytest.mark.parametrize("fleet", [NOBODY, CPU])
def test_the_example_is_accepted_and_its_target_modules_are_known(fleet: Fleet) -> None:
    document = YAML(typ="safe", pure=True).load((EXAMPLES / "demo-study.yaml").read_text())
    document["data"]["eval"] = document["data"]["train"] = "examples/wordnet-instruct/eval.jsonl"
    examined = examine(document, [EXAMPLES.parent], fleet)
    assert (examined.warnings, examined.unknown_targets) == ((), ())
    document["space"]["target_modules"] = "q_proj,wte"
    assert [pointer for pointer, _ in refused(EXAMPLES.parent, document)] == ["/space/target_modules"]
