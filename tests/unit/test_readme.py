"""What the README says of the tree is so."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def floors(package: str) -> dict[int, set[str]]:
    """The rooms of a package by floor, as the README draws them."""
    drawn = README.partition(f"\n{package}/")[2].partition("\n")[2]
    found: dict[int, set[str]] = {}
    for line in drawn.splitlines():
        if not line.startswith(" "):
            break
        if room := re.match(r" +(\d+)  (\w+)", line):
            found.setdefault(int(room[1]), set()).add(room[2])
    return found


def contract(package: str) -> dict[int, set[str]]:
    """The same as import-linter checks it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == [package])
    return {number: set(layer.split(" | ")) for number, layer in enumerate(layers, start=1)}


def test_the_floors_are_those_that_are_checked() -> None:
    for package in ("hpo_service", "trainer"):
        assert floors(package) == contract(package)


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"\b(?:tests/)?((?:unit|contracts|integration|e2e|full|gpu)/[a-z_/]+\.py)\b", README))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []


def test_every_folder_and_module_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:hpo_service|trainer|deploy|examples|benchmarks)/[\w./-]+)`", README))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
