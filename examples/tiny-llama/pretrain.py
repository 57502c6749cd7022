"""Pretrains the tiny base model from scratch on CPU: `python pretrain.py --output DIR`."""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import sentencepiece as spm
import torch
from corpus import SOURCES, source_documents
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

SEED = 0
VOCABULARY = 2048
HELD_OUT_EVERY = 100
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token }}\n"
    "{% else %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """What decides the trained weights, beside the seed and the corpus."""

    epochs: int = 1
    block: int = 192
    batch: int = 8
    learning_rate: float = 3e-3
    final_learning_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip_norm: float = 1.0


def split_documents(root: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the shuffled training documents, and the held-out ones of each source."""
    training: list[str] = []
    held_out: dict[str, list[str]] = {}
    for source in SOURCES:
        documents = source_documents(source, root)
        held_out[source.package] = documents[::HELD_OUT_EVERY]
        training += [text for i, text in enumerate(documents) if i % HELD_OUT_EVERY]
        print(f"{source.package}: {len(documents):,} documents, {sum(map(len, documents)):,} characters", flush=True)
    random.Random(SEED).shuffle(training)
    return training, held_out


def train_tokenizer(texts: list[str], folder: Path) -> None:
    """Write tokenizer.model and what AutoTokenizer needs beside it."""
    lines = (line for text in texts for line in text.splitlines() if line)
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        add_dummy_prefix=False,
        max_sentence_length=8192,
        pad_id=3,
        num_threads=1,
        minloglevel=1,
    )
    (folder / "tokenizer.vocab").unlink()
    (folder / "tokenizer.json").unlink(missing_ok=True)  # else it is read instead of the new model
    tokenizer = LlamaTokenizer.from_pretrained(
        folder,
        add_prefix_space=False,
        add_bos_token=True,
        pad_token="<pad>",
        padding_side="right",
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def check_tokenizer(texts: list[str], folder: Path) -> None:
    """Stop unless AutoTokenizer and sentencepiece agree in both directions."""
    reference = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in [*texts, "two  spaces", "line\nbreak\n\n", " leading", "naïve – “ünïcode” 漢字 🙂"]:
        ids = tokenizer(text).input_ids
        if ids != reference.encode(text, add_bos=True) or tokenizer.decode(ids[1:]) != text:
            raise SystemExit(f"tokenizers differ on {text!r}: {ids} {reference.encode(text)}")


def pack(texts: list[str], folder: Path, block: int) -> torch.Tensor:
    """Join documents as <s> text </s> and cut the stream into equal blocks."""
    model = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    stream: list[int] = []
    for ids in model.encode(texts, add_bos=True, add_eos=True):
        stream += ids
    whole = len(stream) // block * block
    return torch.tensor(stream[:whole], dtype=torch.long).view(-1, block)


def new_model() -> LlamaForCausalLM:
    """Build the untrained model; every matrix dimension suits 256-wide k-quants."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
        )
    )


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to the final rate."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    span = recipe.learning_rate - recipe.final_learning_rate
    return recipe.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2


def block_loss(model: LlamaForCausalLM, blocks: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss."""
    logits = model(input_ids=blocks[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten())


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, blocks: torch.Tensor, batch: int) -> float:
    """Mean loss over blocks, each weighed alike."""
    model.eval()
    losses = [block_loss(model, part) * len(part) for part in blocks.split(batch)]
    model.train()
    return float(sum(losses)) / len(blocks)


def batches(blocks: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Yield every epoch's batches in its own order."""
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(SEED + epoch))
        for part in order.split(recipe.batch):
            if len(part) == recipe.batch:
                yield blocks[part]


def optimizer_for(model: LlamaForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def train(
    model: LlamaForCausalLM, blocks: torch.Tensor, held_out: torch.Tensor, recipe: Recipe
) -> list[dict[str, float]]:
    """Train in place; return the curve."""
    optimizer = optimizer_for(model, recipe)
    steps = len(blocks) // recipe.batch * recipe.epochs
    curve: list[dict[str, float]] = []
    recent: list[float] = []
    started = time.monotonic()
    for step, batch in enumerate(batches(blocks, recipe)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, recipe)
        loss = block_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if (step + 1) % 200 == 0 or step + 1 == steps or step == 0:
            point = {
                "step": step + 1,
                "tokens": (step + 1) * recipe.batch * recipe.block,
                "seconds": round(time.monotonic() - started, 1),
                "train_loss": round(sum(recent) / len(recent), 4),
                "held_out_loss": round(mean_loss(model, held_out, recipe.batch), 4),
            }
            curve.append(point)
            recent.clear()
            print(f"of {steps}: {json.dumps(point)}", flush=True)
    return curve


def main() -> None:
    """Corpus, tokenizer, training, files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where Debian's files lie")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    recipe = Recipe()

    training, held_out = split_documents(options.root)
    train_tokenizer(training, options.output)
    check_tokenizer(training[:500], options.output)
    blocks = pack(training, options.output, recipe.block)
    held_out_blocks = {name: pack(texts, options.output, recipe.block) for name, texts in held_out.items()}
    print(f"{blocks.numel():,} training tokens", flush=True)

    model = new_model()
    curve = train(model, blocks, torch.cat(list(held_out_blocks.values())), recipe)
    model.to(torch.bfloat16).save_pretrained(options.output)
    model.float()
    held_out_losses = {name: round(mean_loss(model, part, recipe.batch), 4) for name, part in held_out_blocks.items()}
    facts = {
        "parameters": model.num_parameters(),
        "training_tokens_per_epoch": blocks.numel(),
        "recipe": asdict(recipe),
        "held_out_loss_by_source": held_out_losses,
        "curve": curve,
    }
    (options.output / "loss_curve.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
