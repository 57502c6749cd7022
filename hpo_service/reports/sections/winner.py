"""The best trial against the baseline, with how sure that is, and its parameters as files."""

from collections.abc import Sequence

from hpo_service.formatting.comparison import over, reached, shared_difference
from hpo_service.formatting.values import Cell, gpu_hours, loss, value_text
from hpo_service.reports.blocks import Block, Command, Figure, Listing, Paragraph, Section, Table
from hpo_service.reports.plots.intervals import confirmed_losses
from hpo_service.services.confirmations.schemas import CandidateDocument, ConfirmationDocument
from hpo_service.services.reports.facts import ReportedTrial, StudyReport
from hpo_service.services.studies.schemas import BestDocument

_CANDIDATES = (
    "candidate",
    "seeds",
    "mean loss",
    "standard deviation",
    "against the baseline, over the seeds of both",
    "mean test loss",
    "in the search",
    "note",
)
_OPEN_FORMAT = "yaml"


def winner(report: StudyReport) -> Section:
    """Losses of the two, and of all candidates if the best were confirmed."""
    best, blocks = report.best, list[Block]()
    if best is None:
        return Section(title="Baseline and winner", blocks=[Paragraph("Nothing is known.", "soft")])
    blocks.append(Paragraph(report.verdict))
    if report.comparison is not None:
        blocks.append(_compared(report, best))
    confirmation = report.study.confirmation
    if confirmation is not None:
        blocks += _confirmation(confirmation, best)
    elif report.comparison is not None:
        blocks.append(Paragraph(_noise(report), "soft"))
    return Section(title="Baseline and winner", blocks=blocks)


def parameters(report: StudyReport) -> list[Section]:
    """Values beside the baseline's, and every export; nothing before the first rung."""
    best, found = report.best, report.winner
    if best is None or found is None:
        return []
    columns = ("parameter", f"trial {best.trial_number}")
    other = report.baseline if report.baseline is not found else None
    rows = [(name, value_text(value), *_theirs(other, name)) for name, value in best.parameters.items()]
    command = f"hpo best {report.study.name} --format yaml -o best.yaml"
    blocks: list[Block] = [
        Table(columns=(*columns, "baseline") if other is not None else columns, rows=rows),
        Command("As a file for production:", command),
        Command("Train it to its end:", "python -m trainer run best.yaml --output-dir runs/best"),
        *_exports(report),
    ]
    return [Section(title="Best parameters", blocks=blocks)]


def _theirs(other: ReportedTrial | None, name: str) -> tuple[str, ...]:
    if other is None:
        return ()
    return (value_text(other.parameters[name]) if name in other.parameters else "–",)


def _exports(report: StudyReport) -> list[Listing]:
    return [
        Listing(
            title=f"{name}: {file.file_name}" + (f" (no place for {', '.join(file.dropped)})" if file.dropped else ""),
            text=file.text,
            folded=name != _OPEN_FORMAT,
        )
        for name, file in report.exports.items()
    ]


def _compared(report: StudyReport, best: BestDocument) -> Table:
    found = report.comparison
    assert found is not None
    width = "" if found.half_width is None else f" ± {found.half_width:.4f}"
    where = reached(found.examples, found.baseline_examples)
    return Table(
        columns=("", "trial", f"loss {where}, {over(found.seeds)}"),
        rows=[
            ("winner", str(best.trial_number), loss(found.loss)),
            ("baseline", str(found.baseline_trial), loss(found.baseline_loss)),
            ("difference", "", f"{found.difference:+.4f}{width}"),
        ],
    )


def _noise(report: StudyReport) -> str:
    found = report.comparison
    if found is None or found.half_width is None:
        return "How sure the difference is cannot be said: the losses of single evaluation examples are not known."
    return (
        "The interval (95 %) is from paired losses of the same evaluation examples, and from an assumed spread between "
        "seeds, since both were trained with one. A study with `confirm` in its spec measures that spread."
    )


def _confirmation(found: ConfirmationDocument, best: BestDocument) -> Sequence[Block]:
    number = best.trial_number if best.confirmed is not None else None
    plot: Figure | None = confirmed_losses(found, number)
    examples = f"{found.spent.examples:,} of at most {found.max_examples:,} examples"
    if found.spent.examples > found.max_examples:
        examples = (
            f"{found.spent.examples:,} examples, though its share is {found.max_examples:,}: one run each of the best "
            "trial and the baseline is always allowed"
        )
    bill = (
        f"{found.runs} of at most {found.most_runs} runs; {examples}; {gpu_hours(found.spent.seconds)}, apart from the "
        "search's bill."
    )
    said = f" {found.sentence}" if best.confirmed is None else ""
    return [
        Paragraph(f"The confirmation is {found.state}.{said}"),
        Table(columns=_CANDIDATES, rows=[_candidate(one, found) for one in found.candidates]),
        *([] if plot is None else [plot]),
        Paragraph(bill, "soft"),
    ]


def _candidate(one: CandidateDocument, found: ConfirmationDocument) -> tuple[Cell, ...]:
    baseline = next((other.trial_number for other in found.candidates if other.baseline), None)
    gap = next(
        (
            gap
            for gap in found.differences
            if (gap.trial_number, gap.other_trial_number) == (one.trial_number, baseline)
        ),
        None,
    )
    searched = f"{loss(one.searched_loss) or '–'} after {one.searched_examples:,}"
    note = "; ".join(part for part in ("baseline" if one.baseline else "", one.out or "") if part)
    return (
        f"trial {one.trial_number}",
        one.seeds,
        loss(one.mean),
        loss(one.spread),
        None if gap is None else shared_difference(gap.mean, gap.half_width, gap.seeds),
        loss(one.test_loss),
        searched,
        note,
    )
