"""What to do now, in a sentence, and where the study stands."""

from hpo_service.core.study_rules import TERMINAL
from hpo_service.formatting.values import Cell, after_more, duration, moment, parts_ahead
from hpo_service.reports.blocks import Block, Command, Paragraph, Section, Table
from hpo_service.services.reports.facts import StudyReport
from hpo_service.services.studies.schemas import BestDocument


def recommendation(report: StudyReport) -> Section:
    """The sentence, what speaks against it, and the bare facts."""
    blocks: list[Block] = [Paragraph(sentence(report), "lead"), *_warnings(report)]
    return Section(title="Recommendation", blocks=[*blocks, Table(rows=_facts(report))])


def sentence(report: StudyReport) -> str:
    """Which parameters to use, and why."""
    best = report.best
    if best is None:
        ended = report.study.state in TERMINAL
        when = "; the study has ended." if ended else " yet."
        return f"There is nothing to recommend: no trial has reached a rung{when}"
    if best.confirmed is not None and report.study.confirmation is not None:
        return f"{_confirmed_advice(report, best)} {report.study.confirmation.sentence}"
    if best.provisional:
        return _provisional(report, best)
    return _searched(report, best)


def _confirmed_advice(report: StudyReport, best: BestDocument) -> str:
    found = report.comparison
    if found is not None and found.better:
        return f"Use the parameters of trial {best.trial_number}."
    if found is None and best.improvement is None:
        return f"Use the parameters of trial {best.trial_number}: there is no baseline to compare them with."
    return "Keep your current configuration."


def _provisional(report: StudyReport, best: BestDocument) -> str:
    where = f"trial {best.trial_number} leads with a loss of {best.loss:.4f} after {best.examples:,} examples"
    if report.study.state in TERMINAL:
        return f"Take care: {where}, but no trial was trained to its end. {report.verdict}"
    return f"Wait: {where}, but no trial has been trained to its end yet."


def _searched(report: StudyReport, best: BestDocument) -> str:
    found = report.comparison
    own = f"trial {best.trial_number} has the lowest loss of those that were trained to their end, {best.loss:.4f}"
    if report.study.trials.complete == 1:
        own = f"trial {best.trial_number} is the one that was trained to its end, with a loss of {best.loss:.4f}"
    if found is None:
        return f"Use the parameters of trial {best.trial_number}: {own}. There is no baseline to compare it with."
    if found.difference > 0:
        return f"Keep your current configuration: of what was searched {own}. {report.verdict}"
    if found.better:
        relative = "" if best.improvement is None else f" That is {best.improvement.relative:.1%}."
        return f"Use the parameters of trial {best.trial_number}: {own}. {report.verdict}{relative}"
    return f"Confirm before you change anything: {own}. {report.verdict}"


def _warnings(report: StudyReport) -> list[Block]:
    """What a reader should know before following the advice."""
    study, blocks = report.study, list[Block]()
    if study.state not in TERMINAL:
        blocks.append(
            Paragraph(f"The study is {study.state}: this is how it stood when the report was made.", "warning")
        )
    leader = study.leader
    if leader is not None and leader.ahead_of_best is not None and report.best is not None:
        lead, ended = leader.ahead_of_best, "" if leader.complete else " and was not trained to its end"
        text = (
            f"Trial {leader.trial_number} leads{ended}: after {lead.examples:,} examples its loss was {lead.loss:.4f}, "
            f"that of trial {report.best.trial_number} {lead.best_loss:.4f}"
            f"{after_more(lead.examples, lead.best_examples)}{parts_ahead(lead.parts_ahead, lead.parts)}."
        )
        blocks.append(Paragraph(text, "warning"))
    if study.standstill is not None:
        blocks.append(Paragraph(f"It does not go on: {study.standstill}.", "warning"))
    for edge in study.edges:
        blocks.append(Paragraph(f"Better values may lie beyond: {edge.message}.", "warning"))
        blocks.append(Command("Widen the range with", edge.command))
    return blocks


def _facts(report: StudyReport) -> list[tuple[str, Cell]]:
    study = report.study
    counts = ", ".join(f"{count:,} {standing}" for standing, count in study.trials.model_dump().items() if count)
    model, data = study.resolved["model"]["path"], study.resolved["data"]["train"]
    seconds = None
    if study.started_at is not None:
        seconds = ((study.finished_at or report.made_at) - study.started_at).total_seconds()
    facts: list[tuple[str, Cell]] = [
        ("state", f"{study.state}: {study.message}" if study.message else str(study.state)),
        ("trials", f"{counts or 'none yet'} (budget: {study.max_trials:,})"),
        ("base model", str(model)),
        ("training data", str(data)),
        ("labels", ", ".join(f"{name}={value}" for name, value in study.labels.items()) or None),
        ("search", f"{study.resolved['search']['strategy']}, seed {study.resolved['search']['seed']}"),
        ("began", moment(study.started_at)),
        ("ended", moment(study.finished_at)),
        ("took", None if seconds is None else duration(seconds)),
        ("report made", f"{moment(report.made_at)} by hpo-service {report.version}"),
    ]
    return [fact for fact in facts if fact[1] is not None]
