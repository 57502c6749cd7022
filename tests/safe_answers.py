"""What every answer tells a browser, whatever it holds."""

from typing import Any


def require_safe(answer: Any) -> None:
    """Nothing is guessed, framed, sent on, kept or run that did not come from the service itself."""
    where = f"{answer.request.method} {answer.request.url.path}: {answer.status_code}"
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff", where
    assert headers["x-frame-options"] == "DENY", where
    assert headers["referrer-policy"] == "no-referrer", where
    assert headers["cross-origin-opener-policy"] == "same-origin", where
    assert headers["cross-origin-resource-policy"] == "same-origin", where
    assert "access-control-allow-origin" not in headers, where
    assert len(headers.get_list("content-security-policy")) == 1, where
    _require_closed(headers["content-security-policy"], where)
    is_file = answer.request.url.path.startswith("/static/") and answer.status_code == 200
    is_stream = headers.get("content-type", "").startswith("text/event-stream")
    assert is_file or headers["cache-control"] == ("no-cache" if is_stream else "no-store"), where
    for cookie in headers.get_list("set-cookie"):
        assert "HttpOnly" in cookie, where
        assert "SameSite=strict" in cookie, where


def _require_closed(policy: str, where: str) -> None:
    parts = [part.split() for part in policy.split(";") if part.strip()]
    directives = {name: values for name, *values in parts}
    assert len(directives) == len(parts), f"{where}: {policy}"
    assert directives["frame-ancestors"] == ["'none'"], f"{where}: {policy}"
    assert directives["base-uri"] == ["'none'"], f"{where}: {policy}"
    assert directives["form-action"] in (["'none'"], ["'self'"]), f"{where}: {policy}"
    assert directives["default-src"] in (["'none'"], ["'self'"]), f"{where}: {policy}"
    # The pictures of optuna-dashboard are drawn by a library that makes functions of text.
    evaluates = {"'unsafe-eval'"} if "/dashboard" in where else set[str]()
    scripts = directives.get("script-src", directives["default-src"])
    assert set(scripts) <= {"'none'", "'self'"} | evaluates, f"{where}: {policy}"
