"""What only a GPU can show: the same noise as on a CPU, QLoRA, the paged optimizer, trials equal to the bit."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.mixed_trials import KINDS, differing, weights_of
from trainer.model.keyed_random import TokenKeys, keyed_bits
from trainer.model.neftune import neftune_noise
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import TrialSpec, Usage
from trainer.training.engines.resident import ResidentEngine

pytestmark = pytest.mark.gpu
bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra `quantized`")

MakeEngine = Callable[..., ResidentEngine]
MakeSpec = Callable[..., TrialSpec]


def test_noise_has_the_bits_of_the_cpu(cuda: torch.device) -> None:
    words = torch.randint(-(2**63), 2**63 - 1, (4, 50), generator=torch.Generator().manual_seed(0))
    examples = torch.arange(4)[:, None].expand(4, 50)
    assert torch.equal(keyed_bits(words.to(cuda), 12345, 999).cpu(), keyed_bits(words, 12345, 999))
    here, there = (
        neftune_noise(TokenKeys(words.to(device), examples.to(device)), torch.zeros(4, 50, 30, device=device), 5.0)
        for device in (torch.device("cpu"), cuda)
    )
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_company_changes_nothing(make_engine: MakeEngine, make_spec: MakeSpec, tmp_path: Path, dtype: str) -> None:
    assert differing(make_engine, make_spec, list(KINDS), dtype, tmp_path, seeds=[1, 2, 3]) == []


def resumed_equals_whole(engine: ResidentEngine, spec: TrialSpec, root: Path) -> None:
    whole, part = engine.admit(spec, None), engine.admit(spec, None)
    losses = [step.loss for step in engine.advance(whole, 10**9)]
    assert losses[0] - losses[-1] > 0.1
    before = [step.loss for step in engine.advance(part, 24)]
    store = SnapshotStore(FolderStore(root))
    snapshot = store.read(store.write("s/1", engine.snapshot(part, None), Usage()))
    engine.evict(part)
    again = engine.admit(spec, snapshot)
    assert before + [step.loss for step in engine.advance(again, 10**9)] == losses
    assert torch.equal(weights_of(again), weights_of(whole))
    engine.evict(again)
    engine.evict(whole)


@bitsandbytes
@pytest.mark.parametrize("kind", ["plain", "dora", "pissa"])
def test_a_trial_on_a_quantized_base_learns_and_resumes(
    make_engine: MakeEngine, make_spec: MakeSpec, tmp_path: Path, kind: str
) -> None:
    model = {"dtype": "bfloat16", "quantization": "nf4"}
    engine = make_engine(**model)
    names = [name for name, _ in engine._base._weights]
    assert any(name.endswith("nested_absmax") for name in names)
    resumed_equals_whole(engine, make_spec(epochs=4.0, **model, **KINDS[kind]), tmp_path)


@bitsandbytes
def test_the_paged_optimizer_resumes_and_leaves_no_memory(
    make_engine: MakeEngine, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """At rank 1024 the larger matrices have more than the 100,000 elements from which bitsandbytes pages."""
    from trainer.training.paged_optimizer import _free

    engine = make_engine()
    spec = make_spec(optimizer="paged_adamw_8bit", lora_r=1024, learning_rate=1e-4, epochs=4.0)
    resumed_equals_whole(engine, spec, tmp_path / "1")
    kept = sum(len(buffers) for buffers in _free.values())
    assert kept > 0
    resumed_equals_whole(engine, spec, tmp_path / "2")
    assert sum(len(buffers) for buffers in _free.values()) == kept


def test_flash_attention_is_taken_where_it_is_installed(make_engine: MakeEngine) -> None:
    expected = "flash_attention_2" if find_spec("flash_attn") else "sdpa"
    assert make_engine(dtype="bfloat16").attention == expected
    assert make_engine(dtype="float32").attention == "sdpa"
