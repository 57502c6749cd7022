"""What `python -m trainer run` prints of a run that is done."""

from datetime import datetime
from typing import Any

from trainer.accounting.prices import PriceTable
from trainer.spec import SliceResult
from trainer.training.evaluate import perplexity


def summarize(result: SliceResult, prices: PriceTable | None, at: datetime) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The summary as one JSON object, and what is to be said of it.

    Counts, seconds, energy and cost are of this process: a resumed run counts from where it went on. What cannot be
    known is null. `phase_seconds` are those of the worker by what they were spent on; `cost_usd` is for all of them.
    """
    usage, sums = result.usage, result.usage.sums()
    said = [notice.message for notice in result.notices]
    cost_usd = None
    if prices is not None:
        quote = prices.quote(result.device, at)
        if quote.usd_per_device_hour is None:
            said.append(f"the cost is not known: {quote.reason}")
        else:
            cost_usd = quote.usd_per_device_hour * sums.device_seconds / 3600
    test = {} if result.test_loss is None else {"test_loss": result.test_loss}
    return {
        "eval_loss": result.eval_loss,
        "perplexity": perplexity(result.eval_loss or 0.0),
        **test,
        "examples": result.examples_seen,
        "steps": usage.steps,
        "tokens": usage.tokens,
        "tokens_per_second": _rounded(sums.tokens_per_second(), 1),
        "mfu": _rounded(sums.mfu(), 4),
        "hfu": _rounded(sums.hfu(), 4),
        "phase_seconds": {
            "load": round(usage.load_seconds, 3),
            "data": round(usage.data_seconds, 3),
            "train": round(usage.train_seconds, 3),
            "evaluate": round(usage.evaluate_seconds, 3),
            "snapshot": round(usage.snapshot_seconds, 3),
        },
        "peak_memory_bytes": usage.peak_memory_bytes,
        "energy_joules": _rounded(usage.energy_joules, 1),
        "cost_usd": _rounded(cost_usd, 6),
        "device": result.device,
        "dtype": result.dtype,
    }, tuple(said)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
