"""Everything that is written can be read, in light and in dark."""

import re

import pytest
from playwright.sync_api import Browser

from tests.browsing import Console, needs_chromium, open_page
from tests.scene import fill, places

pytestmark = needs_chromium

# The weakest contrast of any text that is seen, by WCAG's formula, with the colours that shine through.
WEAKEST = """
() => {
  const parse = (words) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    canvas.fillStyle = words; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    if (element === null) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  let weakest = [99, ""];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest(".unseen, .skip")) continue;
    if (!element.checkVisibility()) continue;
    const back = behind(element);
    const ink = getComputedStyle(element)[element.closest("svg") ? "fill" : "color"];
    const [a, b] = [light(over(parse(ink), back)), light(back)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < weakest[0]) weakest = [contrast, texts.currentNode.data];
  }
  return weakest;
}
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_can_be_read(console: Console, browser: Browser, dark: bool) -> None:
    fill(console)
    with console.page(browser, dark=dark) as page:
        for name, path in places(console).items():
            open_page(page, f"{console.url}{path}")
            contrast, words = page.evaluate(WEAKEST)
            assert contrast >= 4.5, f"{name}: {words!r} has {contrast:.1f}"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 200) is dark
