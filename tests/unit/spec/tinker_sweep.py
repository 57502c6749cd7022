"""The Tinker cookbook's SFT sweep, to which presets refer: `recipes/chat_sl/results/sft_sweep.md` at 9dfcc3a2.

548 runs of 35 models on tulu3, batch 128, 780 steps, alpha 32; negative log-likelihood per token of the test set.
"""

from dataclasses import dataclass

#: name and billions of parameters | learning rate:loss at the largest rank | rank:loss at its best learning rate
_TABLE = """
Llama-3.2-1B 1 | 1e-4:0.8271 3e-4:0.7966 1e-3:0.7763 | 4:0.8162 16:0.7948 64:0.7802 128:0.7763
Llama-3.2-3B 3 | 1e-4:0.6925 3e-4:0.6706 1e-3:0.6559 | 4:0.6808 16:0.6661 64:0.658 128:0.6559
Qwen3-4B-Instruct-2507 4 | 1e-4:0.5725 3e-4:0.5639 1e-3:0.5588 | 4:0.5676 16:0.5631 64:0.5596 128:0.5588
Qwen3.5-4B 4 | 1e-4:0.5477 3e-4:0.5402 1e-3:0.542 | 4:0.5467 16:0.5424 64:0.5406 128:0.5402
Qwen3-8B 8 | 1e-4:0.5518 3e-4:0.5433 1e-3:0.5374 | 4:0.5458 16:0.5405 64:0.5382 128:0.5374
Qwen3-8B-Base 8 | 1e-4:0.5267 3e-4:0.5217 1e-3:0.5189 | 4:0.5234 16:0.5219 64:0.5195 128:0.5189
Llama-3.1-8B 8 | 1e-4:0.5976 3e-4:0.5834 1e-3:0.5847 | 4:0.5925 16:0.5863 64:0.5839 128:0.5834
Llama-3.1-8B-Instruct 8 | 1e-4:0.5828 3e-4:0.5727 1e-3:0.5743 | 4:0.5792 16:0.575 64:0.573 128:0.5727
Qwen3.5-9B 9 | 1e-4:0.7295 3e-4:0.7172 1e-3:0.7345 | 4:0.7231 16:0.7178 64:0.7166 128:0.7172
Qwen3.5-9B-Base 9 | 1e-4:0.6896 3e-4:0.6758 1e-3:0.6864 | 4:0.6804 16:0.6774 64:0.6758 128:0.6758
gpt-oss-20b 20 | 1e-4:0.542 | 4:0.5431 16:0.542
Qwen3.5-27B 27 | 1e-4:0.4727 3e-4:0.4682 1e-3:0.4704 | 1:0.4733 4:0.4701 16:0.4688 64:0.4682
Qwen3.6-27B 27 | 1e-4:0.6635 3e-4:0.6541 1e-3:0.6738 | 1:0.6635 4:0.6585 16:0.6557 64:0.6541
Qwen3-30B-A3B 30 | 1e-4:0.5231 3e-4:0.5168 1e-3:0.5126 3e-3:0.5428 | 1:0.523 4:0.5184 16:0.515 64:0.5126
Qwen3-30B-A3B-Base 30 | 1e-4:0.5023 3e-4:0.4983 1e-3:0.4965 3e-3:0.5333 | 1:0.5028 4:0.4992 16:0.4984 64:0.4965
Qwen3-30B-A3B-Instruct-2507 30 | 1e-4:0.5083 3e-4:0.5029 1e-3:0.5004 | 1:0.5088 4:0.5047 16:0.5029 64:0.5004
Qwen3-VL-30B-A3B-Instruct 30 | 1e-4:0.5022 3e-4:0.4975 1e-3:0.4971 | 1:0.5044 4:0.4997 16:0.498 64:0.4971
Nemotron-3-Nano-30B-A3B 30 | 2e-4:0.5501 4e-4:0.5449 2e-3:0.5469 | 1:0.554 4:0.5482 16:0.5455 64:0.5449
Qwen3-32B 32 | 1e-4:0.5055 3e-4:0.499 | 1:0.5043 4:0.5011 16:0.4995 64:0.499
Qwen3.5-35B-A3B 35 | 1e-4:0.4872 3e-4:0.4827 1e-3:0.4841 | 1:0.49 4:0.4856 16:0.4835 64:0.4827
Qwen3.5-35B-A3B-Base 35 | 1e-4:0.6475 3e-4:0.6388 1e-3:0.6469 | 1:0.6518 4:0.6439 16:0.6398 64:0.6388
Qwen3.6-35B-A3B 35 | 1e-4:0.6783 3e-4:0.6714 1e-3:0.6829 | 1:0.6849 4:0.679 16:0.671 64:0.6714
Llama-3.1-70B 70 | 1e-4:0.5047 3e-4:0.4997 | 1:0.5045 2:0.5015 4:0.4997
Llama-3.3-70B-Instruct 70 | 1e-4:0.5076 3e-4:0.5021 | 1:0.5068 2:0.5042 4:0.5021
Nemotron-3-Super-120B-A12B 120 | 2e-4:0.4799 4e-4:0.4776 1e-3:0.4767 | 1:0.4835 4:0.4808 16:0.4783 64:0.4767
gpt-oss-120b 120 | 3e-4:0.5032 1e-3:0.5053 3e-3:0.5477 | 1:0.5092 4:0.5048 16:0.5032
Qwen3-235B-A22B-Instruct-2507 235 | 1e-4:0.4616 3e-4:0.4589 1e-3:0.4648 | 1:0.4615 2:0.4597 4:0.4589
Qwen3-VL-235B-A22B-Instruct 235 | 1e-4:0.4639 3e-4:0.461 1e-3:0.4668 | 1:0.4639 2:0.4623 4:0.461
Qwen3.5-397B-A17B 397 | 1e-4:0.4438 3e-4:0.4419 1e-3:0.4589 | 1:0.4444 2:0.4431 4:0.4419
Nemotron-3-Ultra-550B-A55B 550 | 1e-4:0.599 3e-4:0.5936 1e-3:0.6186 | 1:0.5986 2:0.5947 4:0.5936
DeepSeek-V3.1 685 | 1e-4:0.6079 3e-4:0.602 1e-3:0.66 | 1:0.6076 2:0.6045 4:0.602
DeepSeek-V3.1-Base 685 | 1e-4:0.4848 4e-4:0.4826 1e-3:0.4904 | 1:0.4853 2:0.4835 4:0.4826
Kimi-K2-Thinking 1000 | 3e-4:0.4707 1e-3:0.4741 | 1:0.4729 2:0.471 4:0.4707
Kimi-K2.5 1000 | 1e-4:0.4645 3e-4:0.4634 1e-3:0.4696 | 1:0.4669 2:0.4649 4:0.4634
Kimi-K2.6 1000 | 1e-4:0.5597 3e-4:0.5579 1e-3:0.5749 | 1:0.5595 2:0.5578 4:0.5579
"""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A model; what each learning rate and each rank loses against the best one, in percent."""

    name: str
    billions: float
    by_rate: dict[float, float]
    by_rank: dict[int, float]


def _percent(cells: str) -> dict[str, float]:
    losses = dict(cell.split(":") for cell in cells.split())
    best = min(map(float, losses.values()))
    return {key: 100 * (float(loss) / best - 1) for key, loss in losses.items()}


def _swept(line: str) -> Swept:
    name_size, rates, ranks = line.split(" | ")
    name, billions = name_size.split()
    return Swept(
        name=name,
        billions=float(billions),
        by_rate={float(rate): loss for rate, loss in _percent(rates).items()},
        by_rank={int(rank): loss for rank, loss in _percent(ranks).items()},
    )


SWEEP = tuple(_swept(line) for line in _TABLE.strip().splitlines())
