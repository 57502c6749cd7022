"""The service's answers as rows, records and sentences for humans."""

from typing import Any

from hpo_service.cli.confirmation import bill_of, confirmed_words, expected_bill, sentence_of, show_candidates
from hpo_service.cli.figures import check_sentence, efficiency, gibibytes, percent, ran_as, whole
from hpo_service.cli.forecast import forecast_sentence
from hpo_service.cli.output import make_table, say, show_record, show_table, stdout, text
from hpo_service.formatting.comparison import gain
from hpo_service.formatting.values import lowering

Json = dict[str, Any]

STUDY_COLUMNS = ("study", "state", "trials", "best loss", "vs baseline", "saved", "spent", "created")
TRIAL_COLUMNS = ("trial", "state", "examples", "loss")


def study_row(study: Json) -> list[object]:
    """A study as a row of STUDY_COLUMNS."""
    return [
        study["name"],
        study["state"],
        f"{sum(study['trials'].values())}/{study['max_trials']}",
        _loss(study["best"]),
        _gain(study["best"]),
        f"{study['savings']['share']:.0%}",
        spent(study),
        study["created_at"][:19],
    ]


def show_study(study: Json) -> None:
    """A study as a record, with its best parameters."""
    show_record(
        {
            "study": study["name"],
            "state": study["state"] + (f" ({', '.join(study['pending'])} asked for)" if study["pending"] else ""),
            "message": study["message"] or None,
            "stands still": study["standstill"],
            "trials": ", ".join(f"{count} {name}" for name, count in study["trials"].items() if count) or "none yet",
            "budget": f"{study['max_trials']} trials",
            "spent": spent(study),
            "kept back": kept_back(study["reserve"]),
            "forecast": forecast_sentence(study),
            **efficiency(study["usage"]),
            "saved": saved(study),
            "best": best_sentence(study["best"]),
            "leader": leader_sentence(study),
            "confirmation": sentence_of(study),
            "confirming took": bill_of(study),
            "outlook": outlook_sentence(study),
            "learns from": past_sentence(study["past"]),
            "computed in": dtype_sentence(study["resolved"]),
            "dashboard": study["dashboard"],
            "created": study["created_at"],
            "finished": study["finished_at"],
        }
    )
    show_candidates(study)
    if study["best"]:
        show_table(("parameter", "value"), list(study["best"]["parameters"].items()))
    for warning in edge_warnings(study["edges"]):
        say(warning)


def dtype_sentence(resolved: Json) -> str | None:
    """What its trials are computed in, and on what device auto was found to be that; None before any was."""
    dtype, device = resolved["model"]["dtype"], resolved.get("dtype_device")
    if dtype == "auto":
        return None
    return f"{dtype}, which auto is on {device}" if device else str(dtype)


def outlook_sentence(study: Json) -> str | None:
    """What more compute would be expected to buy."""
    outlook = study["outlook"]
    if outlook is None:
        return None
    bought = {"10 GPU-hours": outlook["ten_gpu_hours"], "10 % of the bill": outlook["tenth_of_the_bill"]}
    parts = [
        f"another {what} would be expected to lower the best loss by {lowering(purchase['expected_improvement'])}"
        for what, purchase in bought.items()
        if purchase is not None
    ]
    return f"{'; '.join(parts)} (an estimate)"


def past_sentence(past: list[Json]) -> str | None:
    """Earlier studies with their similarity and, once there are results, how far they are trusted."""
    return "; ".join(map(_past, past)) or None


def _past(known: Json) -> str:
    trust = "" if known["weight"] is None else f", trusted {known['weight']:.2f}"
    return f"{known['study']} ({known['trials']} trials, similarity {known['similarity']:.2f}{trust})"


def edge_warnings(edges: list[Json]) -> list[str]:
    """Ranges that the best trials would leave, each with the command that widens it."""
    return [f"Warning: {edge['message']}; widen it with: {edge['command']}" for edge in edges]


def show_warnings(answer: Json) -> None:
    """What is allowed but probably not meant; beside the answer, so that what reads it as JSON is not disturbed."""
    for warning in answer.get("warnings", []):
        say(f"Warning: {warning}")


def show_report(report: Json) -> None:
    """What a study would be."""
    show_warnings(report)
    seconds = report["expected_seconds"]
    show_record(
        {
            "study": report["name"],
            "searched": f"{report['dimensions']} parameters",
            "trials": f"{report['trials']} (about {report['slices']} slices)",
            "rungs": ", ".join(map(str, report["ladder"])) + " examples",
            "rows": f"{report['train_rows']} to train on, {report['eval_rows']} to evaluate on",
            "expected": f"{report['expected_examples']} examples ({report['expected_share']:.0%} of training all)",
            "confirmation": expected_bill(report),
            "time": "unknown before the first study of this model" if seconds is None else f"about {duration(seconds)}",
            "baseline": report["baseline"],
            "learns from": past_sentence(report["past"]),
            "data check": check_sentence(report["data_check"]),
        }
    )


def searched_names(trials: list[Json]) -> list[str]:
    """Parameters that differ between trials."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial["parameters"].items():
            values.setdefault(name, set()).add(text(value))
    return [name for name, different in values.items() if len(different) > 1]


def trial_row(trial: Json, searched: list[str]) -> list[object]:
    """A trial as a row: TRIAL_COLUMNS, the searched parameters, a note."""
    return [
        trial["number"],
        standing(trial),
        f"{examples_now(trial)}/{text(trial['total_examples'])}",
        last_loss(trial),
        *(trial["parameters"].get(name) for name in searched),
        "baseline" if trial["baseline"] else trial["message"] or trial["outcome"] or "",
    ]


def show_trial(trial: Json) -> None:
    """A trial with its rungs and attempts."""
    show_record(
        {
            "trial": trial["number"],
            "state": standing(trial) + (" (baseline)" if trial["baseline"] else ""),
            "message": trial["message"] or None,
            "examples": f"{examples_now(trial)} of {text(trial['total_examples'])}",
            "loss": last_loss(trial),
            "time": duration(trial["seconds"]) + lost(trial["usage"]["lost_seconds"]),
            "cost": f"{trial['cost_usd']:.2f} USD" if trial["cost_usd"] else None,
            **efficiency(trial["usage"]),
            "adapter": "can be downloaded" if trial["adapter_available"] else "none yet",
        }
    )
    show_table(("parameter", "value"), list(trial["parameters"].items()))
    show_table(("examples", "loss"), [(rung["examples"], rung["loss"]) for rung in trial["losses"]])
    columns = (
        "slice",
        "attempt",
        "to",
        "worker",
        "outcome",
        "time",
        "cost",
        "tokens/s",
        "MFU",
        "memory",
        "ran as",
        "message",
    )
    attempts = [
        (
            row["slice_id"],
            row["attempt"],
            row["until_examples"],
            where(row),
            ending(row),
            *bill(row["seconds"], row["cost_usd"], estimated=row["estimated"]),
            whole(row["usage"]["tokens_per_second"]),
            percent(row["usage"]["mfu"]),
            gibibytes(row["usage"]["peak_memory_bytes"]),
            ran_as(row),
            row["message"],
        )
        for row in trial["history"]
    ]
    stdout().print(make_table(columns, attempts))


def where(attempt: Json) -> str | None:
    """The worker of an attempt, with the node if there is one."""
    worker: str | None = attempt["worker"]
    return f"{worker} on {attempt['node']}" if worker and attempt["node"] else worker


def ending(attempt: Json) -> str:
    """How an attempt ended, with the cause if it was no fault of the trial."""
    outcome = str(attempt["outcome"] or "running")
    return f"{outcome} ({attempt['cause']})" if attempt["cause"] else outcome


def standing(trial: Json) -> str:
    """A trial's state in our words."""
    if trial["paused"]:
        return "paused"
    state = str(trial["state"])
    return "failed" if state == "FAIL" else state.lower()


def examples_now(trial: Json) -> int:
    """How far a trial is, its running slice included."""
    return max(int(trial["examples_seen"]), int((trial["progress"] or {}).get("examples_seen", 0)))


def last_loss(trial: Json) -> float | None:
    """The loss at the highest rung."""
    losses = [rung["loss"] for rung in trial["losses"]]
    final: float | None = trial["loss"] if trial["loss"] is not None else (losses[-1] if losses else None)
    return final


def best_sentence(best: Json | None) -> str:
    """The winner in one line."""
    if best is None:
        return "none yet"
    known = confirmed_words(best)
    if known is not None:
        return f"trial {best['trial_number']}, {known}, {gain_sentence(best)}"
    sentence = f"trial {best['trial_number']}, loss {best['loss']:.4f} after {best['examples']} examples"
    if best["provisional"]:
        sentence += " (provisional)"
    return f"{sentence}, {gain_sentence(best)}" if best["improvement"] else sentence


def kept_back(reserve: Json | None) -> str | None:
    """What a cap leaves for the trial that leads."""
    if reserve is None:
        return None
    hours = "" if reserve["gpu_hours"] is None else f" ({reserve['gpu_hours']:.2g} GPU-hours)"
    who = "a trial" if reserve["trial_number"] is None else f"trial {reserve['trial_number']}"
    return f"{reserve['examples']} examples{hours} for training {who} to its end"


def leader_sentence(study: Json) -> str | None:
    """Which trial is ahead of all others, where that is not the best one."""
    leader = study["leader"]
    if leader is None or leader["ahead_of_best"] is None:
        return None
    lead, best = leader["ahead_of_best"], study["best"]
    ended = "" if leader["complete"] else ", not trained to its end"
    later = f" after {lead['best_examples']}" if lead["best_examples"] != lead["examples"] else ""
    parts = f", lower on {lead['parts_ahead']} of {lead['parts']} parts of the evaluation rows" if lead["parts"] else ""
    return (
        f"trial {leader['trial_number']}{ended}: {lead['loss']:.4f} after {lead['examples']} examples, "
        f"where trial {best['trial_number']} had {lead['best_loss']:.4f}{later}{parts}"
    )


def gain_sentence(best: Json) -> str:
    """How the winner compares with the baseline."""
    better = best["improvement"]
    if better is None:
        return "no baseline to compare with"
    if better["baseline_trial"] == best["trial_number"]:
        return "which is the baseline itself"
    names = ("relative", "loss", "baseline_loss", "examples", "baseline_examples", "seeds")
    return gain(**{name: better[name] for name in names})


def spent(study: Json) -> str:
    """What a study has consumed."""
    usage = study["spent"]
    money = f", {usage['usd']:.2f} USD" if usage["usd"] else ""
    return f"{usage['examples']} examples, {duration(usage['seconds'])}{lost(usage['lost_seconds'])}{money}"


def lost(seconds: float) -> str:
    """The part of a time that lost attempts took, for the end of a sentence; nothing if there were none."""
    return f" (about {duration(seconds)} of it by lost attempts)" if seconds else ""


def bill(seconds: float, usd: float, *, estimated: bool) -> tuple[str, str | None]:
    """Time and cost; with ~ if they are an estimate."""
    about = "~" if estimated else ""
    return f"{about}{duration(seconds)}", f"{about}{usd:.2f} USD" if usd else None


def saved(study: Json) -> str:
    """What stopping early has saved."""
    savings = study["savings"]
    return f"{savings['share']:.0%} ({savings['examples']} examples not trained)"


def duration(seconds: float) -> str:
    """Seconds for humans."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _loss(best: Json | None) -> str:
    return "-" if best is None else f"{best['loss']:.4f}{'?' if best['provisional'] else ''}"


def _gain(best: Json | None) -> str:
    better = best and best["improvement"]
    if not best or not better or better["baseline_trial"] == best["trial_number"]:
        return "-"
    return f"{-better['relative']:+.1%}"
