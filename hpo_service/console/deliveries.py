"""The deliveries of a promotion: how far each is, the losses of what it made, and where that is."""

from collections.abc import Sequence
from typing import Any

from hpo_service.console.frame import Column, chip, empty, moment, panel, stacked, table
from hpo_service.formatting.html import Child, Markup, join, tag
from hpo_service.services.deliveries.schemas import DeliveryDocument, FinalLossDocument

_COLUMNS = (
    Column(title="Delivery"),
    Column(title="State"),
    Column(title="How far", wide=True),
    Column(title="Loss", number=True),
    Column(title="Download"),
    Column(title="By"),
    Column(title="When"),
)


def deliveries_panel(deliveries: Sequence[DeliveryDocument], promotion: str, *, more: bool) -> Markup:
    """The newest first. `more`: there are older ones than these."""
    content: Child = empty("No model was made of it yet: ", tag("code", f"hpo deliver {promotion}"), ".")
    if deliveries:
        content = table(_COLUMNS, [_row(one) for one in deliveries], name="Deliveries")
    older = tag("p", "Older ones: ", tag("code", f"hpo delivery list {promotion.partition('@')[0]}")) if more else None
    return panel("deliveries", "Deliveries", content, older)


def _row(one: DeliveryDocument) -> list[Child]:
    base = f"/v1/deliveries/{one.id}"
    return [
        stacked(tag("a", f"delivery {one.id}", href=base), _asked(one)),
        chip(one.state),
        stacked(one.message, _progress(one)),
        None if one.losses is None else _losses(one.losses),
        _downloads(one, base),
        one.delivered_by,
        moment(one.created_at),
    ]


def _downloads(one: DeliveryDocument, base: str) -> Markup | None:
    links = [
        tag("div", tag("a", made.name, href=f"{base}/artifacts/{made.name}", title=made.location))
        for made in one.artifacts
    ]
    return join(*links) if links else None


def _asked(one: DeliveryDocument) -> str:
    wanted = ["adapter"] + ["merged"] * (one.merge or one.quantize is not None) + [one.quantize] * bool(one.quantize)
    return ", ".join(str(name) for name in wanted)


def _progress(one: DeliveryDocument) -> str | None:
    """How far a running training is."""
    for step in one.steps:
        seen: Any = step.progress.get("examples_seen")
        if step.state == "running" and seen is not None:
            return f"{seen:,} examples"
    return None


def _losses(found: FinalLossDocument) -> Markup:
    """The adapter's own loss on the evaluation rows; below it what was promoted, where that is known, and test rows."""
    known = (("promoted with", found.promoted_loss), ("on test rows", found.test_loss))
    return stacked(f"{found.loss:.4f}", "; ".join(f"{name} {loss:.4f}" for name, loss in known if loss is not None))
