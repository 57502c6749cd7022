"""Markup."""

from hpo_service.formatting.html import Markup, join, page, tag


def test_markup_is_escaped_unless_it_is_markup() -> None:
    assert tag("a", "<b>", href='"x"') == '<a href="&quot;x&quot;">&lt;b&gt;</a>'
    assert tag("p", tag("b", "x"), None, 3, class_="y") == '<p class="y"><b>x</b>3</p>'
    assert isinstance(join("<", tag("br")), Markup)
    assert "<title>&lt;/title&gt;</title>" in page("</title>")
