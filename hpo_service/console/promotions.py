"""The pages of promotions: every version, and one of them."""

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from hpo_service.auth.principals import Scope
from hpo_service.console.buttons import button, outcome
from hpo_service.console.deliveries import deliveries_panel
from hpo_service.console.frame import (
    Assets,
    Column,
    Viewer,
    chip,
    console_page,
    empty,
    facts,
    live,
    menu,
    moment,
    panel,
    stacked,
    table,
)
from hpo_service.console.words import study_link, trial_link
from hpo_service.exporters import FORMATS
from hpo_service.formatting.comparison import bill as bill_words
from hpo_service.formatting.comparison import over, reached
from hpo_service.formatting.html import Child, Markup, tag
from hpo_service.formatting.values import plural, value_text
from hpo_service.services.deliveries.schemas import DeliveryDocument
from hpo_service.services.promotions.schemas import PromotionDocument
from hpo_service.services.studies.schemas import Page

_COLUMNS = (
    Column(title="Promotion"),
    Column(title="State"),
    Column(title="From"),
    Column(title="Loss", number=True),
    Column(title="Verdict", wide=True),
    Column(title="By"),
    Column(title="When"),
)


def promotions_page(promotions: Sequence[PromotionDocument], next_page: str | None, assets: Assets) -> Markup:
    """All versions, the newest first."""
    command = tag("code", "hpo promote STUDY --to NAME")
    none = empty("Nothing was promoted yet. Promote from a study's page, or with ", command, ".")
    older = (
        tag("p", tag("a", "Older ones", href=f"/promotions?{urlencode({'page_token': next_page})}"))
        if next_page
        else None
    )
    content = table(_COLUMNS, [_row(one) for one in promotions], name="Promotions") if promotions else none
    return console_page(
        "Promotions",
        "/promotions",
        assets,
        tag("h1", "Promotions", class_="unseen"),
        panel("promotions", "Promotions", content, older),
    )


def promotion_page(
    one: PromotionDocument, latest: int | None, deliveries: Page[DeliveryDocument], viewer: Viewer, assets: Assets
) -> Markup:
    """One version with its newest deliveries. `latest` is the one that is pulled now; None if none may be used."""
    buttons = _buttons(one, latest, viewer)
    in_use = [chip("best", "in use")] if one.version == latest else []
    title = tag("div", tag("h1", _label(one)), _standing(one), *in_use, class_="title")
    actions = tag("div", *buttons, class_="buttons", data_outcome="page-outcome") if buttons else None
    return console_page(
        _label(one),
        "/promotions",
        assets,
        live("head", title, tag("p", one.verdict), actions, class_="head"),
        outcome("page-outcome"),
        _links(one),
        tag("div", _origin(one), _parameters(one), class_="columns"),
        tag("div", _losses(one), _surroundings(one), class_="columns"),
        deliveries_panel(deliveries.items, _label(one), more=deliveries.next_page_token is not None),
    )


def _row(one: PromotionDocument) -> list[Child]:
    searched = one.losses.confirmed_loss if one.losses.confirmed_loss is not None else one.losses.searched_loss
    return [
        stacked(
            tag("a", _label(one), href=_address(one)), f"repeats version {one.rollback_of}" if one.rollback_of else None
        ),
        _standing(one),
        stacked(*_source(one)),
        None if searched is None else f"{searched:.4f}",
        stacked(one.verdict, one.note),
        one.promoted_by,
        moment(one.created_at),
    ]


def _source(one: PromotionDocument) -> tuple[Child, Child]:
    """Its study and trial; no links where the study is gone, because another one may have its name."""
    if one.study_deleted:
        return f"{one.study}, which was deleted", f"trial {one.trial_number}"
    return study_link(one.study), trial_link(one.study, one.trial_number)


def _standing(one: PromotionDocument) -> Markup:
    if not one.effective:
        return chip("waiting", "waits for approval")
    return chip("completed", "approved" if one.approved_by else "may be used")


def _buttons(one: PromotionDocument, latest: int | None, viewer: Viewer) -> list[Markup]:
    base, found = f"/v1/promotions/{quote(one.name, safe='')}", []
    if not one.effective and viewer.may(Scope.APPROVE):
        question = f"Approve {_label(one)}? From then on production may use it."
        found.append(button("approve", "Approve", f"{base}/{one.version}:approve", done="Approved.", confirm=question))
    if one.effective and viewer.may(Scope.PROMOTE):
        found += [_deliver(one, "deliver", "Deliver"), _deliver(one, "deliver-merged", "Deliver merged", merge=True)]
    if one.effective and latest is not None and one.version != latest and viewer.may(Scope.PROMOTE):
        question = f"Go back to {_label(one)}? A new version repeats it and is what production pulls from then on."
        found.append(
            button(
                "rollback",
                "Go back to this version",
                f"{base}:rollback",
                body=json.dumps({"version": one.version}),
                done="A new version repeats this one.",
                confirm=question,
                danger=True,
            )
        )
    return found


def _deliver(one: PromotionDocument, identifier: str, title: str, merge: bool = False) -> Markup:
    what = "adapter, merged into its base," if merge else "adapter"
    return button(
        identifier,
        title,
        f"/v1/promotions/{quote(one.name, safe='')}/{one.version}/deliveries",
        body=json.dumps({"merge": merge}),
        done="A delivery has begun; it is listed below.",
        confirm=f"Make the {what} of {_label(one)}? It is trained to its end, unless that was done already.",
    )


def _links(one: PromotionDocument) -> Markup:
    base = f"/v1/promotions/{quote(one.name, safe='')}/{one.version}"
    links = [tag("a", "As JSON", href=base)]
    if one.effective:
        exports = [(name, f"{base}/export?{urlencode({'format': name})}") for name in FORMATS]
        links.append(menu("exports", "Export", exports))
    return live("links", *links, element="nav", class_="links")


def _origin(one: PromotionDocument) -> Markup:
    approved = (
        None
        if one.approved_by is None or one.approved_at is None
        else stacked(one.approved_by, moment(one.approved_at))
    )
    bill = one.bill
    took = bill_words(bill.study_seconds, bill.confirmation_seconds, bill.study_usd + bill.confirmation_usd)
    known: list[tuple[str, Child]] = [
        *zip(("Study", "Trial"), _source(one), strict=True),
        ("Promoted by", stacked(one.promoted_by, moment(one.created_at))),
        ("Approved by", approved),
        ("Repeats", f"version {one.rollback_of}" if one.rollback_of else None),
        ("Note", one.note or None),
        ("It took", took),
    ]
    return panel("origin", "Where it comes from", facts(known))


def _parameters(one: PromotionDocument) -> Markup:
    return panel(
        "parameters",
        "Parameters",
        facts([(name, tag("code", value_text(value))) for name, value in one.parameters.items()]),
    )


def _losses(one: PromotionDocument) -> Markup:
    losses, found, mean = one.losses, one.comparison, f"mean over {plural(one.losses.confirmed_seeds, 'new seed')}"
    known: list[tuple[str, Child]] = [
        ("In the search", _loss(losses.searched_loss)),
        ("Confirmed", _mean(losses.confirmed_loss, mean)),
        ("On test rows", _mean(losses.test_loss, mean)),
    ]
    if found is not None:
        where = f"{over(found.seeds)}, {reached(found.examples, found.baseline_examples)}"
        known += [
            ("Beside the baseline", stacked(f"{found.loss:.4f}", where)),
            ("Baseline", f"{found.baseline_loss:.4f}"),
            ("Difference", _difference(found.difference, found.half_width)),
        ]
    return panel("losses", "Losses", facts(known))


def _surroundings(one: PromotionDocument) -> Markup:
    digests = [(name.replace("_", " "), value) for name, value in one.digests.model_dump().items() if value]
    known: list[tuple[str, Child]] = [
        ("device", one.environment.device or None),
        ("computed in", one.environment.dtype or None),
        ("made by", one.environment.generator),
    ]
    known += [(name, tag("code", f"{value[:16]}…", title=value)) for name, value in digests]
    return panel("digests", "Digests and environment", facts(known))


def _difference(difference: float, half_width: float | None) -> str:
    return f"{difference:+.4f}" + ("" if half_width is None else f" ± {half_width:.4f}")


def _mean(value: float | None, mean: str) -> Child:
    return None if value is None else stacked(f"{value:.4f}", mean)


def _loss(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _address(one: PromotionDocument) -> str:
    return f"/promotions/{quote(one.name, safe='')}/{one.version}"


def _label(one: PromotionDocument) -> str:
    return f"{one.name}@{one.version}"
