"""What keeps the service from using a cluster."""

from pathlib import Path

import pytest

from hpo_service.core.errors import SetupError
from hpo_service.executors.ray.start import require_address, require_token


def test_without_token_mode_it_is_refused_with_a_way_to_make_one() -> None:
    with pytest.raises(SetupError, match=r"RAY_AUTH_MODE is ''; it must be 'token'\. .*ray get-auth-token --generate"):
        require_token({})
    with pytest.raises(SetupError, match="RAY_AUTH_MODE is 'disabled'"):
        require_token({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "t"})


def test_a_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    named = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    with pytest.raises(SetupError, match=r"RAY_AUTH_TOKEN is not set and .*/token holds no token"):
        require_token(named)
    path.write_text("secret\n")
    require_token(named)
    require_token({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret"})


def test_the_address_is_a_drivers() -> None:
    assert require_address("10.0.0.7:6379") == "10.0.0.7:6379"
    with pytest.raises(SetupError, match="RAY_ADDRESS is not set"):
        require_address(None)
    with pytest.raises(SetupError, match="no Ray client"):
        require_address("ray://10.0.0.7:10001")
