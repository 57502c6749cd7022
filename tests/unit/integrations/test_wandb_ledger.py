"""What Weights & Biases was told is kept apart for each run and each model, and whole or not at all."""

from pathlib import Path

import pytest

from hpo_service.integrations.wandb_ledger import Ledger


def test_models_of_two_projects_are_two(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "told")
    for name in ("a b-c", "a-b c", "a-b-c", "../a"):
        with ledger.model(name) as told:
            assert told.keys == []
            told.keys = [name]
    for name in ("a b-c", "a-b c", "a-b-c", "../a"):
        with ledger.model(name) as told:
            assert told.keys == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["told"]


def tell_half(ledger: Ledger) -> None:
    with ledger.run("r") as told:
        told.step = 6
        raise OSError("away")


def test_what_broke_off_was_not_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.run("r") as told:
        told.step, told.names = 5, ["loss"]
    with pytest.raises(OSError, match="away"):
        tell_half(ledger)
    with Ledger(tmp_path).run("r") as told:
        assert (told.step, told.names) == (5, ["loss"])
