"""What is looked for in text: secrets, personal data, refusals, boilerplate. High precision before recall.

Every pattern has literal needles that are looked for first, which costs a hundredth of the regular expression.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Pattern(NamedTuple):
    """`kind` names it in reports; a match counts if `accepts` says so. No needles: two digits in a row."""

    kind: str
    needles: tuple[str, ...]
    expression: re.Pattern[str]
    accepts: Callable[[str], bool] = lambda _: True


def _luhn(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    known_test_card = len(set(digits)) <= 3
    return not known_test_card and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    packed = text.replace(" ", "")
    moved = packed[4:] + packed[:4]
    return 15 <= len(packed) <= 34 and int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _real_host(text: str) -> bool:
    return not re.search(
        r"^git@|@(?:[\w-]+\.)*(?:example|test|domain|localhost|email|company|yourdomain)\b", text, re.I
    )


def _real_phone(text: str) -> bool:
    digits = "".join(character for character in text if character.isdigit())
    return 9 <= len(digits) <= 15 and "555" not in digits and len(set(digits)) > 3


def _real_password(text: str) -> bool:
    password = text.rpartition("@")[0].rpartition(":")[2].lower()
    return not re.search(r"pass|pwd|secret|example|xxx|\*\*|[<>{}$\[\]]", password)


def _no_example(text: str) -> bool:
    return "EXAMPLE" not in text.upper() and not re.search(r"(.)\1{7}", text)


def _secret(kind: str, needle: str | tuple[str, ...], expression: str) -> Pattern:
    needles = (needle,) if isinstance(needle, str) else needle
    return Pattern(kind, needles, re.compile(expression), _no_example)


SECRETS: tuple[Pattern, ...] = (
    _secret("AWS access key", ("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    _secret("AWS secret key", ("aws", "AWS"), r"(?i)\baws_?secret_?(?:access_?)?key\W{1,6}[A-Za-z0-9/+]{40}\b"),
    _secret("GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    _secret("GitHub token", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{60,255}\b"),
    _secret("GitLab token", "glpat-", r"\bglpat-[A-Za-z0-9_-]{20,64}\b"),
    _secret("Slack token", "xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}\b"),
    _secret("Slack webhook", "hooks.slack.com", r"\bhooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{16,}"),
    _secret("Stripe key", "_live_", r"\b[sr]k_live_[A-Za-z0-9]{20,247}\b"),
    _secret("Google API key", "AIza", r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
    _secret("API key", "sk-", r"\bsk-(?:proj-|ant-|or-|svcacct-)?[A-Za-z0-9_-]{32,250}\b"),
    _secret("Hugging Face token", "hf_", r"\bhf_[A-Za-z0-9]{30,60}\b"),
    _secret("npm or PyPI token", ("npm_", "pypi-"), r"\b(?:npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,})"),
    _secret("SendGrid key", "SG.", r"\bSG\.[\w-]{20,24}\.[\w-]{39,50}\b"),
    _secret("Telegram bot token", ":AA", r"\b\d{8,10}:AA[A-Za-z0-9_-]{33}\b"),
    _secret("Azure storage key", "AccountKey=", r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
    _secret("JSON web token", "eyJ", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{16,}"),
    _secret(
        "private key", "PRIVATE KEY", r"-----BEGIN (?:[A-Z]+ ){0,2}PRIVATE KEY(?: BLOCK)?-----[\r\n\\\w+/=:-]{16,}"
    ),
    Pattern(
        "password in a URL",
        ("://",),
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"'<>]{1,64}:[^\s:/@\"'<>]{6,128}@[\w.-]+"),
        _real_password,
    ),
)
PERSONAL_DATA: tuple[Pattern, ...] = (
    Pattern(
        "e-mail address",
        ("@",),
        re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,12}(?!\w)"),
        _real_host,
    ),
    Pattern(
        "phone number",
        (),
        re.compile(
            r"(?<![\w+.-])(?:\+[1-9]\d{0,2}[ .-](?:\(?\d{1,4}\)?[ .-]){1,4}\d{2,4}|"
            r"\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-])"
        ),
        _real_phone,
    ),
    Pattern(
        "payment card",
        (),
        re.compile(
            r"(?<![\d.,-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)([ -]?)\d{4}\1\d{4}\1\d{4}|"
            r"3[47]\d\d([ -]?)\d{6}\2\d{5})(?![\d-])"
        ),
        _luhn,
    ),
    Pattern("IBAN", (), re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
)

_REFUSAL_NEEDLES = ("sorry", "apologi", "as an ai", "unable", "cannot", "can't", "not able", "programm", "guidelines")
_REFUSAL = re.compile(
    r"\bas an ai\b(?: language)?(?: model| assistant)?|"
    r"^(?:i'?m |i am )?(?:so |very )?(?:sorry|afraid),? (?:but |that )?(?:i |as an ai|this is not|it is not possible)|"
    r"^i apologi[sz]e,? (?:but|for (?:any|the) (?:confusion|inconvenience))|"
    r"^(?:unfortunately,? )?i(?: am|'m)? (?:cannot|can't|can not|unable to|not able to|won't) "
    r"(?:assist|help|fulfil|comply|provide|answer|complete|generate|create|do |write|discuss|engage|share|access)|"
    r"\b(?:against|violates?) (?:my|openai's|our) (?:programming|polic|guidelines)|"
    r"^i am not programmed to"
)
_REFUSAL_CHARACTERS = 240
#: in text of which the case is lowered and white space made single spaces
_BOILERPLATE = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|begin_of_text|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[/inst]",
    "<<sys>>",
    "### response:",
    "### instruction:",
    "<noinput>",
    "<no input>",
    "lorem ipsum",
    "[insert ",
    "[your name",
    "click here to",
    "all rights reserved",
    "cookie policy",
    "enable javascript",
    "subscribe to our newsletter",
    "regenerate response",
    "this page intentionally left blank",
)
_DIGITS = re.compile(r"\d\d")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")


def kinds_of(text: str, patterns: tuple[Pattern, ...]) -> set[str]:
    """Which of the patterns occur in `text`."""
    return {pattern.kind for pattern, _ in _matches(text, patterns)}


def masked(text: str) -> str:
    """`text` with every secret and every piece of personal data replaced by its kind."""
    for pattern, match in list(_matches(text, SECRETS + PERSONAL_DATA)):
        text = text.replace(match, f"[{pattern.kind}]")
    return text


def is_refusal(response: str) -> bool:
    """Whether a response (lower case, single spaces) refuses or speaks as an AI model near its start."""
    start = response[:_REFUSAL_CHARACTERS].replace("’", "'")
    return any(needle in start for needle in _REFUSAL_NEEDLES) and _REFUSAL.search(start) is not None


def has_boilerplate(text: str) -> bool:
    """Whether a text (lower case, single spaces) holds a placeholder, a template's marker or a web page's remains."""
    return _needle_in(_BOILERPLATE, text)


def has_control_characters(text: str) -> bool:
    """Whether there is a control character other than tab and line ends, or U+FFFD."""
    return _CONTROL.search(text) is not None


def _matches(text: str, patterns: tuple[Pattern, ...]) -> Iterator[tuple[Pattern, str]]:
    digits = _DIGITS.search(text) is not None
    for pattern in patterns:
        if _needle_in(pattern.needles, text) or (digits and not pattern.needles):
            for match in pattern.expression.finditer(text):
                if pattern.accepts(match.group()):
                    yield pattern, match.group()


def _needle_in(needles: tuple[str, ...], text: str) -> bool:
    for needle in needles:  # noqa: SIM110 (a third of the time of `any`)
        if needle in text:
            return True
    return False
