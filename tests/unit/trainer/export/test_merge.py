"""Merging: what the merged folder computes, what it keeps, and what is refused."""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.__main__ import main
from trainer.common.errors import UserError
from trainer.export.folders import model_digest
from trainer.export.lora_file import LoraPair
from trainer.export.manifest import LogitCheck, read_manifest
from trainer.export.merge import check_logits, merge

MakeAdapter = Callable[..., Path]
MergeOptions = Callable[..., Namespace]
IDS = torch.arange(3, 43).reshape(2, 20)

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
    "attention": {"target_modules": ["q_proj", "v_proj"]},
}


@torch.no_grad()
def logits(folder: Path, adapter: Path | None = None) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_computes_what_the_adapter_on_the_base_does(
    kind: str, base_folder: Path, make_adapter: MakeAdapter, merge_options: MergeOptions
) -> None:
    adapter, before = make_adapter(**KINDS[kind]), model_digest(base_folder)
    options = merge_options(adapter)
    summary = merge(options)
    expected = logits(base_folder, adapter)
    assert difference(logits(options.output), expected) <= 1e-4
    assert difference(logits(base_folder), expected) > 0.1
    assert summary["max_difference"] <= summary["tolerance"] * max(1.0, summary["largest_logit"])
    assert summary["adapter_effect"] > 0.1
    assert model_digest(base_folder) == before


def test_a_start_from_the_bases_own_directions_is_merged_from_its_export_at_rank_2r(
    base_folder: Path, merge_options: MergeOptions, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights="pissa")
    peft: Any = get_peft_model(model, config)
    # PEFT writes the start with a configuration that does not start it again.
    peft.peft_config["default"].init_lora_weights = True
    peft.save_pretrained(tmp_path / "start")
    peft.peft_config["default"].init_lora_weights = "pissa"
    for name, weight in peft.named_parameters():
        if "lora_" in name:
            weight.data.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    with torch.no_grad():
        expected = peft.eval()(input_ids=IDS).logits
    peft.save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match="rank 2r"):
        merge(merge_options(tmp_path / "plain"))
    peft.save_pretrained(tmp_path / "wide", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    options = merge_options(tmp_path / "wide")
    merge(options)
    assert load_file(tmp_path / "wide" / "adapter_model.safetensors")[
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
    ].shape == (8, 64)
    assert difference(logits(options.output), expected) <= 1e-4


def test_what_the_adapter_does_not_touch_is_kept_to_the_bit_and_nothing_else_travels(
    base_folder: Path, make_adapter: MakeAdapter, merge_options: MergeOptions, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(base_folder, base)
    (base / "chat_template.jinja").write_text("{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    (base / "LICENSE").write_text("do as you like")
    (base / "evil.py").write_text("raise SystemExit")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    options = merge_options(make_adapter(target_modules=["q_proj"]), model=str(base))
    merge(options)
    kept = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    kept |= {"chat_template.jinja", "LICENSE"}
    assert {path.name for path in options.output.iterdir()} == kept | {"model.safetensors", "manifest.json"}
    assert all((options.output / name).read_bytes() == (base / name).read_bytes() for name in kept)
    before, after = load_file(base / "model.safetensors"), load_file(options.output / "model.safetensors")
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}


def test_several_shards_have_an_index_that_transformers_reads(
    base_folder: Path, make_adapter: MakeAdapter, merge_options: MergeOptions
) -> None:
    adapter = make_adapter()
    options = merge_options(adapter, max_shard_size=60_000)
    merge(options)
    shards = sorted(options.output.glob("model-*-of-*.safetensors"))
    index = json.loads((options.output / "model.safetensors.index.json").read_text())
    assert len(shards) > 2
    assert {shard.name for shard in shards} == set(index["weight_map"].values())
    tensors = [tensor for shard in shards for tensor in load_file(shard).values()]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors)
    assert difference(logits(options.output), logits(base_folder, adapter)) <= 1e-4
    # ... and so does a merge whose base is in shards.
    again = merge_options(adapter, model=str(options.output), output=options.output.with_name("again"))
    merge(again)
    assert difference(logits(again.output), logits(options.output, adapter)) <= 1e-4


def test_another_dtype_is_rounded_once_and_said_in_the_configuration(
    base_folder: Path, make_adapter: MakeAdapter, merge_options: MergeOptions
) -> None:
    adapter = make_adapter()
    exact = merge_options(adapter)
    merge(exact)
    rounded = merge_options(adapter, dtype="bfloat16", output=exact.output.with_name("rounded"))
    summary = merge(rounded)
    whole = load_file(exact.output / "model.safetensors")
    for name, tensor in load_file(rounded.output / "model.safetensors").items():
        assert torch.equal(tensor, whole[name].bfloat16()), name
    assert json.loads((rounded.output / "config.json").read_text())["dtype"] == "bfloat16"
    assert 0 < summary["max_difference"] < summary["adapter_effect"]


def test_the_manifest_says_what_it_was_made_from_and_how_good_it_is(
    base_folder: Path,
    make_adapter: MakeAdapter,
    row_files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter, output = make_adapter(), tmp_path / "out"
    arguments = ["--model", str(base_folder), "--adapter", str(adapter), "-o", str(output), "--threads", "1"]
    assert main(["merge", *arguments, "--eval-data", str(row_files[1]), "--eval-rows", "5"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    manifest = read_manifest(output)
    assert manifest is not None
    assert manifest.quality is not None
    assert manifest.logits is not None
    assert manifest.sources.base == model_digest(base_folder)
    assert manifest.sha256 == model_digest(output)
    assert manifest.quality.evaluation_rows == 5
    assert manifest.quality.perplexity_after == pytest.approx(manifest.quality.perplexity_before, rel=1e-5)
    assert manifest.size_bytes == sum(file.stat().st_size for file in output.iterdir() if file.name != "manifest.json")
    assert summary["size_bytes"] == manifest.size_bytes
    assert summary["max_difference"] == manifest.logits.max_difference
    assert main(["merge", *arguments]) == 1
    assert capsys.readouterr().err.endswith(f"error: {output} exists already; name another folder or delete it\n")


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def retensor(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


def widened(base: Path) -> dict[str, torch.Tensor]:
    return {name: weight.double() for name, weight in load_file(base / "model.safetensors").items()}


UP = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
BAD: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "pickled adapter": (
        lambda _, adapter: (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin"),
        "has no adapter_model.safetensors",
    ),
    "pickled base": (
        lambda base, _: (base / "model.safetensors").rename(base / "pytorch_model.bin"),
        "has no safetensors weights",
    ),
    "base under another name": (
        lambda base, _: (base / "model.safetensors").rename(base / "other.safetensors"),
        "has neither model.safetensors nor",
    ),
    "an adapter in the base": (
        lambda base, a: shutil.copy(a / "adapter_config.json", base),
        "holds adapter_config.json",
    ),
    "float64 base": (
        lambda base, _: save_file(widened(base), base / "model.safetensors", metadata={"format": "pt"}),
        "has float64 weights, which no variant keeps; name another type with --dtype",
    ),
    "code in the base": (lambda base, _: edit(base / "config.json", auto_map={"AutoModel": "x.Y"}), "its own code"),
    "code in the tokenizer": (lambda base, _: edit(base / "tokenizer_config.json", auto_map={}), "its own code"),
    "code in the adapter": (lambda _, a: edit(a / "adapter_config.json", auto_map={"x": "y"}), "its own code"),
    "quantized base": (lambda base, _: edit(base / "config.json", quantization_config={}), "is quantized already"),
    "not LoRA": (lambda _, a: edit(a / "adapter_config.json", peft_type="IA3"), "is of type IA3"),
    "biases": (lambda _, a: edit(a / "adapter_config.json", bias="all"), "trains biases"),
    "whole modules": (lambda _, a: edit(a / "adapter_config.json", modules_to_save=["lm_head"]), "modules_to_save"),
    "olora": (lambda _, a: edit(a / "adapter_config.json", init_lora_weights="olora"), "rank 2r"),
    "no rank": (lambda _, a: edit(a / "adapter_config.json", r=0), "no positive number"),
    "another rank": (lambda _, a: edit(a / "adapter_config.json", r=8), "has rank 4, the configuration says 8"),
    "dora without magnitudes": (lambda _, a: edit(a / "adapter_config.json", use_dora=True), "use_dora"),
    "not finite": (lambda _, a: retensor(a, lambda t: t[UP].fill_(torch.nan)), "not finite"),
    "an embedding": (
        lambda _, a: retensor(a, lambda t: t.update({"base_model.model.embed.lora_embedding_A": torch.ones(2)})),
        "no part of a LoRA on linear layers",
    ),
    "half a pair": (lambda _, a: retensor(a, lambda t: t.pop(UP)), "are missing or do not fit"),
    "another width": (
        lambda _, a: retensor(a, lambda t: t.update({UP: torch.ones(4, 32)})),
        r"of another model: it fits a .*up_proj.weight of \[128, 32\], the base's is \[128, 64\]",
    ),
    "another module": (
        lambda _, a: retensor(
            a, lambda t: t.update({k.replace("up_proj", "w3"): t.pop(k) for k in list(t) if "up_proj" in k})
        ),
        "has a part for model.layers.0.mlp.w3.weight",
    ),
    "truncated adapter": (
        lambda _, a: (a / "adapter_model.safetensors").write_bytes(b"\x08" + bytes(20)),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(
    case: str, base_folder: Path, make_adapter: MakeAdapter, merge_options: MergeOptions, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(base_folder, base)
    adapter = make_adapter()
    spoil, message = BAD[case]
    spoil(base, adapter)
    with pytest.raises(UserError, match=message):
        merge(merge_options(adapter, model=str(base)))
    assert {path.name for path in tmp_path.iterdir()} == {"base", "adapter"}


def test_an_output_with_something_in_it_is_left_alone(make_adapter: MakeAdapter, merge_options: MergeOptions) -> None:
    options = merge_options(make_adapter())
    options.output.mkdir()
    (options.output / "mine").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        merge(options)
    assert [path.name for path in options.output.iterdir()] == ["mine"]
    (options.output / "mine").unlink()
    merge(options)
    assert (options.output / "model.safetensors").is_file()


def test_a_wrong_merge_is_not_delivered(
    make_adapter: MakeAdapter, merge_options: MergeOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(LoraPair, "merged", lambda pair, weight: weight + pair.b @ pair.a)
    with pytest.raises(UserError, match="differs from the adapter on the base by"):
        merge(merge_options(make_adapter(use_rslora=True)))
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}


def test_rounding_may_not_swallow_the_adapter() -> None:
    def check(difference: float, effect: float) -> None:
        check_logits(
            LogitCheck(max_difference=difference, largest_logit=10.0, adapter_effect=effect, tolerance=0.04), "bfloat16"
        )

    check(0.3, 5.0)
    check(0.3, 0.0)
    with pytest.raises(UserError, match=r"by 0\.5 in a logit, more than 0\.4 for bfloat16"):
        check(0.5, 5.0)
    with pytest.raises(UserError, match=r"the adapter by 0\.2 only: merge with --dtype float32"):
        check(0.3, 0.2)
    with pytest.raises(UserError, match="by nan"):
        check(float("nan"), 5.0)


def test_the_tokenizer_says_the_same(base_folder: Path, make_adapter: MakeAdapter, merge_options: MergeOptions) -> None:
    options = merge_options(make_adapter())
    merge(options)
    text = "### Instruction:\ncat über 数"
    kept, original = (AutoTokenizer.from_pretrained(folder) for folder in (options.output, base_folder))
    assert kept(text)["input_ids"] == original(text)["input_ids"]


def test_a_module_that_is_no_linear_weight_is_refused(make_adapter: MakeAdapter, merge_options: MergeOptions) -> None:
    adapter = make_adapter()
    retensor(
        adapter,
        lambda tensors: tensors.update(
            {
                f"base_model.model.lm_head.lora_{part}.weight": nn.init.ones_(torch.empty(shape))
                for part, shape in (("A", (4, 64)), ("B", (320, 4)))
            }
        ),
    )
    with pytest.raises(UserError, match="the weight is tied or fused"):
        merge(merge_options(adapter))
