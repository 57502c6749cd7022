"""Usage as the API shows it."""

from hpo_service.studies.documents import UsageDocument
from trainer.spec import UsageSums


def usage_document(sums: UsageSums) -> UsageDocument:
    """Sums with what follows from them."""
    return UsageDocument(
        steps=sums.steps,
        tokens=sums.tokens,
        tokens_per_second=sums.tokens_per_second(),
        mfu=sums.mfu(),
        hfu=sums.hfu(),
        busy=sums.compute_share(),
        energy_joules=sums.energy_joules,
        peak_memory_bytes=sums.peak_memory_bytes,
        load_seconds=sums.load_seconds,
        data_seconds=sums.data_seconds,
        train_seconds=sums.train_seconds,
        evaluate_seconds=sums.evaluate_seconds,
        snapshot_seconds=sums.snapshot_seconds,
    )
