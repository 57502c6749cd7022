"""Files with a character too many or too few: refused with a sentence, or merged without harm."""

from typing import Any

import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from hpo_service.cli.merge import merge
from hpo_service.cli.merge.splice import key_parts
from hpo_service.core.errors import InvalidRequest
from tests.merging import FILES
from tests.merging import settings as exported
from tests.yaml_spans import outside

SOME: dict[str, tuple[str, str]] = {
    "anchors-merge.yaml": ("helm", "big"),
    "axolotl-sections.yaml": ("axolotl", ""),
    "compose.yaml": ("env", "services.train.environment"),
    "flow-multiline.yaml": ("trl", "job"),
    "folded.yaml": ("trl", "job"),
    "hf-args.json": ("hf", ""),
}
BITS = [
    *"{}[],:#&*!|>'\"%@`-?\n\t \r", "\r\n", "- ", "<<: *x", "&x ", "*x", "\n\n", "---\n", "...\n", "{{ a }}", "\x00",
    "\u2028", "~",
]  # fmt: skip


@pytest.mark.parametrize("name", SOME)
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(["", *BITS])), min_size=1, max_size=3)
)
@example(cuts=[(0.0, 0, "{{- if x }}\n")])
@example(cuts=[(0.5, 0, "<<<<<<< HEAD\n")])
def test_a_broken_file_is_refused_or_keeps_what_it_says(name: str, cuts: list[tuple[float, int, str]]) -> None:
    format, key = SOME[name]
    base = (FILES / name).read_bytes().decode()
    for where, gone, come in cuts:
        at = round(where * len(base))
        base = base[:at] + come + base[at + gone :]
    values = exported(format, learning_rate=3.21e-5)
    refused = None
    try:
        merged = merge(base, key, values, (), name)
    except InvalidRequest as error:
        refused = error.detail
    if refused is not None:
        assert name in refused
        return
    assert merge(merged.text, key, values, (), name).text == merged.text
    if read(base) is None:  # another parser has its own opinion of it
        return
    assert read(merged.text) is not None
    written = {one.name for one in merged.changes}
    paths = {(*key_parts(key), *one.path) for one in values if one.name in written}
    if sum(1 for _ in yaml.compose_all(base, Loader=yaml.SafeLoader)) == 1:
        before, after = outside(base, merged.text, paths, 0)
        assert before.rstrip() == after.rstrip()


def read(text: str) -> list[Any] | None:
    """The nodes that PyYAML finds; None where it refuses."""
    try:
        return list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return None
