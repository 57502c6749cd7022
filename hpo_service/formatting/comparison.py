"""A comparison with the baseline in words: the same ones in every place that tells it."""

from hpo_service.formatting.values import plural


def over(seeds: int) -> str:
    """Which seeds the losses of a comparison are means over; 0: the search's one."""
    if not seeds:
        return "with the search's one seed"
    return f"over the {plural(seeds, 'new seed')} that both have"


def reached(examples: int, baseline_examples: int | None = None) -> str:
    """After how many examples both were looked at: those of the trial first, where the two differ."""
    if baseline_examples in (None, examples):
        return f"after {examples} examples"
    return f"each at its own end: {examples} and {baseline_examples} examples"


def losses_of(loss: float, baseline_loss: float, examples: int, baseline_examples: int | None, seeds: int) -> str:
    """Both losses, the trial's first, with all that is to be known of them."""
    how = f", {over(seeds)}" if seeds else ""
    where = reached(examples, baseline_examples)
    between = ", " if where.startswith("each") else " "
    return f"{loss:.4f} against {baseline_loss:.4f}{between}{where}{how}"


def gain(
    relative: float, loss: float, baseline_loss: float, examples: int, baseline_examples: int | None, seeds: int
) -> str:
    """What is won, as a share of the baseline's loss, and both losses."""
    word = "better" if relative >= 0 else "worse"
    losses = losses_of(loss, baseline_loss, examples, baseline_examples, seeds)
    return f"{abs(relative):.1%} {word} than the baseline ({losses})"


def confirmed(mean: float, spread: float | None, seeds: int) -> str:
    """A loss over all new seeds that a trial has, which may be more than the baseline has."""
    deviation = "" if spread is None else f", standard deviation {spread:.4f}"
    return f"mean loss {mean:.4f} over {plural(seeds, 'new seed')}{deviation}"


def shared_difference(mean: float, half_width: float, seeds: int) -> str:
    """A difference with its interval, for a cell of a table."""
    return f"{mean:+.4f} ± {half_width:.4f} ({plural(seeds, 'seed')})"


def bill(search_seconds: float, confirmation_seconds: float, usd: float) -> str:
    """What finding parameters took: the search, and its confirmation where there was one."""
    parts = f" (search {search_seconds:.0f}, confirmation {confirmation_seconds:.0f})" if confirmation_seconds else ""
    money = f", {usd:,.2f} USD" if usd else ""
    return f"{search_seconds + confirmation_seconds:.0f} device seconds{parts}{money}"
