"""HTML that is escaped by construction: a string becomes markup only by passing through `tag`."""

from html import escape

_VOID = frozenset({"meta", "link", "br", "input"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | int | None


def tag(element: str, *children: Child, **attributes: str) -> Markup:
    """An element. Children that are no Markup are escaped, None is left out; `class_` is written `class`."""
    written = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    if element in _VOID:
        return Markup(f"<{element}{written}>")
    return Markup(f"<{element}{written}>{join(*children)}</{element}>")


def join(*children: Child) -> Markup:
    """Children one after the other."""
    return Markup("".join(c if isinstance(c, Markup) else escape(str(c)) for c in children if c is not None))


def page(
    title: str,
    *body: Child,
    refresh_seconds: int | None = None,
    refresh_to: str = "",
    policy: str | None = None,
    style: str = "",
) -> Markup:
    """A whole document in our looks. `policy` is a Content-Security-Policy that goes with a saved copy."""
    refresh = None
    if refresh_seconds is not None:
        content = f"{refresh_seconds}; url={refresh_to}" if refresh_to else str(refresh_seconds)
        refresh = tag("meta", http_equiv="refresh", content=content)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        None if policy is None else tag("meta", http_equiv="Content-Security-Policy", content=policy),
        refresh,
        tag("title", title),
        tag("style", Markup(_STYLE + style)),
    )
    return Markup("<!doctype html>\n" + tag("html", head, tag("body", tag("main", *body)), lang="en"))


_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #666; --accent: #1d4ed8; }
@media (prefers-color-scheme: dark) { :root { --soft: #a3a3a3; --accent: #7cacff; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; background: Canvas; color: CanvasText; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, .soft { color: var(--soft); margin: .2rem 0; }
nav a { margin-right: 1.25rem; white-space: nowrap; }
h3 { font-size: 1rem; margin: 1.25rem 0 .2rem; }
td:first-child { min-width: 8rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
table { border-collapse: collapse; width: 100%; margin-top: .75rem; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .85rem; }
th, td { padding: .55rem .75rem .55rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
.state { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; font-size: .85rem; background: #8882; }
.state.running { background: #2563eb33; } .state.completed { background: #16a34a33; }
.state.failed { background: #dc262633; } .state.paused, .state.pausing { background: #d9770633; }
"""
