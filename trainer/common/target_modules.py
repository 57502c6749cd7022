"""Which linear modules of a model an adapter goes on."""

from collections.abc import Iterable

from trainer.common.errors import UserError

_GROUPS = {"attention": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "ffn")}


def target_modules(linear_modules: Iterable[str], wanted: str) -> list[str]:
    """Full names of the linear modules that `wanted` selects, sorted.

    `wanted` is `all-linear`, `attention`, `mlp`, or comma-separated module names such as `q_proj,v_proj`.

    Raises:
        UserError: a name matches nothing; the message says what exists.
    """
    modules = sorted(linear_modules)
    if wanted == "all-linear":
        chosen = set(modules)
    elif wanted in _GROUPS:
        chosen = {name for name in modules if _is_inside(name, _GROUPS[wanted])}
    else:
        chosen = set()
        for suffix in wanted.split(","):
            matches = {name for name in modules if name == suffix or name.endswith(f".{suffix}")}
            if not suffix or not matches:
                raise UserError(
                    f"target module {suffix!r} is not in the model; it has {', '.join(last_parts(modules))}"
                )
            chosen |= matches
    if not chosen:
        raise UserError(
            f"target_modules {wanted!r} matches no linear layer; the model has {', '.join(last_parts(modules))}"
        )
    return sorted(chosen)


def _is_inside(module_name: str, words: tuple[str, ...]) -> bool:
    return any(word in part for part in module_name.split(".")[:-1] for word in words)


def last_parts(modules: Iterable[str]) -> list[str]:
    """The distinct last parts of full module names, sorted."""
    return sorted({name.rpartition(".")[2] for name in modules})
