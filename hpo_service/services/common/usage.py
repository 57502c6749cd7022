"""Usage and bills as the API shows them."""

from hpo_service.services.common.schemas import SpentDocument, UsageDocument
from hpo_service.storage.queries.usage import Consumed
from hpo_service.storage.tables import Study
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
        lost_seconds=sums.lost_seconds,
    )


def spent_document(study: Study, consumed: Consumed) -> SpentDocument:
    """The study's bill."""
    spent = consumed.spent
    return SpentDocument(
        trials=spent.trials,
        examples=spent.examples,
        seconds=spent.seconds,
        lost_seconds=consumed.usage.lost_seconds * study.resolved["training"]["ranks"],
        usd=spent.usd,
        flops=spent.flops,
    )
