"""The expression language: what it computes, what it refuses, and that it always ends quickly."""

import string
import time
from contextlib import suppress
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_service.core.errors import HpoError
from hpo_service.spec.space.expressions import FUNCTIONS, MAX_LENGTH, ExpressionError, Value, parse_expression

NAMES: dict[str, Value] = {"lora_r": 16, "lora_alpha": 32.0, "lr_scheduler": "cosine", "train_rows": 1000}


def value(text: str) -> object:
    return parse_expression(text).evaluate(NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * lora_r", 32),
        ("lora_alpha / lora_r", 2.0),
        ("-lora_r + 20 // 3 % 4", -14),
        ("2 ** 10", 1024),
        ("ceil(train_rows / lora_r)", 63),
        ("floor(2.9) + round(2.6) + max(1, 2, 3) - min(4, 5)", 4),
        ("sqrt(lora_r) * log2(8)", 12.0),
        ("8 <= lora_r < 32 and not lora_r == 17", True),
        ("lr_scheduler == 'cosine' or lora_r > 64", True),
        ("lr_scheduler != 'cosine'", False),
        ("+lora_r", 16),
    ],
)
def test_computes(text: str, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "lora_r.real",
        "lora_r[0]",
        "(1).bit_length()",
        "[1, 2]",
        "lambda: 1",
        "1 if lora_r else 2",
        "f'{lora_r}'",
        "lora_r := 3",
        "'a' in 'abc'",
        "1 << 60",
        "~1",
        "True",
        "None",
        "1j",
        "1e999",
        "min",
        "min()",
        "sqrt(1, 2)",
        "max(*lora_r)",
        "min(lora_r, key=1)",
        "",
        "1 +",
        "1; 2",
        "'\\x41'",
        "a\x00b",
        "(" * 200 + "1" + ")" * 200,
        "-" * 200 + "1",
        "1" + "+1" * 140,
        "1" * (MAX_LENGTH + 1),
    ],
)
def test_refuses_what_is_not_in_the_language(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"expression .*, column \d+: "):
        parse_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0",
        "lora_r % 0",
        "sqrt(0 - 1)",
        "log2(0)",
        "(0 - 8) ** 0.5",
        "10 ** 65",
        "9 ** 9 ** 9",
        "10 ** 18 * 10",
        "10 ** 60",
        "'a' * 1000000",
        "'%9999999d' % 1",
        "lr_scheduler + 1",
        "lr_scheduler < 3",
        "max(lr_scheduler, 1)",
        "unknown + 1",
        "1e-300 ** 60 / 1e-300 ** 60",
    ],
)
def test_has_no_value_here(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"column \d+: "):
        value(text)


def test_names_are_known_before_evaluation() -> None:
    assert parse_expression("max(lora_r, 2 * k)").names == {"lora_r", "k"}


def test_the_error_names_expression_and_column() -> None:
    with pytest.raises(ExpressionError) as caught:
        value("2 * lora_x")
    assert "'2 * lora_x', column 5: unknown name 'lora_x'" in caught.value.detail


def test_evaluation_stops_at_the_first_false_term() -> None:
    assert value("lora_r < 0 and 1 / 0 > 1") is False


WORDS = [
    *FUNCTIONS,
    *NAMES,
    "and",
    "or",
    "not",
    "if",
    "else",
    "is",
    "in",
    "lambda",
    "'a'",
    "1e308",
    "9" * 30,
    "2",
    "0.5",
]
PIECES = st.one_of(
    st.sampled_from(WORDS), st.sampled_from([*"()+-*/%<>=!,.[]{}:'\"@~^&|", "**", "//", "==", "<=", " "])
)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(st.lists(PIECES, max_size=40).map(" ".join), st.text(string.printable, max_size=60), st.text(max_size=60))
)
def test_no_text_does_more_than_fail_politely(text: str) -> None:
    start = time.perf_counter()
    with suppress(HpoError):
        assert isinstance(value(text), int | float | str)
    assert time.perf_counter() - start < 0.5


@given(st.floats(-1e6, 1e6), st.floats(0.5, 1e3), st.integers(-5, 5))
def test_agrees_with_python(first: float, second: float, power: int) -> None:
    names = {"a": first, "b": second, "n": power}
    result = parse_expression("(a + 1) / b - b ** n").evaluate(names)
    assert isinstance(result, float)
    assert isclose(result, (first + 1) / second - second**power)
