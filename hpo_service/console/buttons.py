"""Buttons that ask the API for something, and dialogs with the fields that it wants.

The script reads everything from attributes: `data-method` and `data-url` say what is asked, `data-confirm` what is
asked before, `data-done` what is said afterwards. A field's name is its path in the JSON body.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpo_service.formatting.html import Child, Markup, tag

FieldKind = Literal["text", "number", "value"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """An input. `path` is where its value goes; "value" fields are numbers or booleans where they read as one.

    With `changed_only` it is sent only if it differs from `value`; an empty field is never sent.
    """

    path: str
    title: str
    value: str = ""
    hint: str = ""
    kind: FieldKind = "text"
    choices: Sequence[str] | None = None
    required: bool = False
    changed_only: bool = False


def button(
    identifier: str,
    title: str,
    url: str,
    *,
    method: str = "POST",
    done: str,
    confirm: str | None = None,
    body: str | None = None,
    danger: bool = False,
    go_to: str | None = None,
) -> Markup:
    """A button that sends one request. `body` is JSON; `go_to` is the page that is opened afterwards."""
    optional = {"data_confirm": confirm, "data_body": body, "data_go": go_to}
    return tag(
        "button",
        title,
        type="button",
        id=identifier,
        class_="danger" if danger else "",
        data_method=method,
        data_url=url,
        data_done=done,
        **{name: value for name, value in optional.items() if value is not None},
    )


def opener(dialog: str, title: str, *, etag: str | None = None) -> Markup:
    """A button that opens a dialog; `etag` is what the change is meant for."""
    known = {} if etag is None else {"data_etag": etag}
    return tag("button", title, type="button", id=f"open-{dialog}", data_opens=dialog, aria_haspopup="dialog", **known)


def dialog(
    identifier: str,
    title: str,
    fields: Sequence[Field],
    url: str,
    *,
    submit: str,
    done: str,
    method: str = "POST",
    about: Child = None,
    fixed: str | None = None,
) -> Markup:
    """A dialog with a form. `fixed` is JSON that is sent beside the fields."""
    known = {} if fixed is None else {"data_body": fixed}
    controls = tag(
        "div",
        tag("button", "Go back", type="button", data_close=""),
        tag("button", submit, type="submit", class_="primary"),
        class_="buttons",
    )
    form = tag(
        "form",
        tag("h2", title, id=f"{identifier}-title"),
        tag("p", about, class_="soft") if about else None,
        tag("div", *(_field(identifier, field) for field in fields), class_="fields"),
        outcome(f"{identifier}-outcome"),
        controls,
        data_method=method,
        data_url=url,
        data_done=done,
        **known,
    )
    return tag("dialog", form, id=identifier, aria_labelledby=f"{identifier}-title")


def outcome(identifier: str) -> Markup:
    """Where the script says what became of a request. It stands outside of what is replaced."""
    return tag("p", id=identifier, class_="outcome", role="status", aria_live="polite")


def _field(dialog: str, field: Field) -> Markup:
    identifier = f"{dialog}-{field.path}"
    flags = {"required": ""} if field.required else {}
    if field.changed_only:
        flags["data_changed_only"] = ""
    common = {"id": identifier, "name": field.path, "data_kind": field.kind, **flags}
    if field.hint:
        common["aria_describedby"] = f"{identifier}-hint"
    if field.choices is not None:
        options = [tag("option", "", value=""), *(_option(choice, field.value) for choice in field.choices)]
        control = tag("select", *options, **common)
    else:
        mode = "text" if field.kind == "text" else "decimal"
        control = tag("input", type="text", value=field.value, autocomplete="off", inputmode=mode, **common)
    hint = tag("span", field.hint, class_="soft", id=f"{identifier}-hint") if field.hint else None
    return tag("div", tag("label", field.title, for_=identifier), control, hint, class_="field")


def _option(choice: str, chosen: str) -> Markup:
    return tag("option", choice, value=choice, **({"selected": ""} if choice == chosen else {}))
