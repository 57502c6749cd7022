"""API keys as texts."""

from hpo_service.auth.principals import digest, parse_key


def test_keys_are_parsed_strictly() -> None:
    secret = "aB_-" * 10 + "xyz"
    assert parse_key(f"hpo_key_12_{secret}") == (12, secret)
    for wrong in ("", "hpo_key_12_", f"hpo_key_0_{secret}", f"hpo_key_١_{secret}", f"hpo_key_1_{secret}x", secret):
        assert parse_key(wrong) is None
    assert len(digest(secret)) == 64
