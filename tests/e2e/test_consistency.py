"""The questions that are asked of every study find nothing in a sound one, and every lie that is planted in a place."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.consistency.place import Json, Place
from tests.consistency.study import disagreements
from tests.e2e.service import Service

NAME = "undisturbed"


class Lying(Place):
    """A place that says something else wherever `where` is looked at."""

    where: str
    truth: str
    lie: str

    def page(self, path: str) -> str:
        """The text at `path`, perhaps changed."""
        return self._told(path, super().page(path))

    def command(self, *arguments: str) -> str:
        """What the command prints, perhaps changed."""
        return self._told(" ".join(arguments), super().command(*arguments))

    def get(self, path: str) -> Json:
        """The JSON at `path`, perhaps changed."""
        found = super().get(path)
        return _changed(found, self.truth, self.lie) if re.search(self.where, path) else found

    def _told(self, where: str, text: str) -> str:
        if not re.search(self.where, where):
            return text
        told, changes = re.subn(self.truth, self.lie, text)
        assert changes, f"{self.truth} is not in {where}"
        return told


def _changed(found: Any, truth: str, lie: str) -> Any:
    if isinstance(found, dict):
        return {key: _changed(value, truth, lie) for key, value in found.items()}
    if isinstance(found, list):
        return [_changed(value, truth, lie) for value in found]
    return lie if isinstance(found, str) and re.fullmatch(truth, found) else found


def lying(place: Place, where: str, truth: str, lie: str) -> Lying:
    made = Lying(**{name: getattr(place, name) for name in Place.__dataclass_fields__})
    for name, value in (("where", where), ("truth", truth), ("lie", lie)):
        object.__setattr__(made, name, value)
    return made


def test_nothing_is_wrong_with_a_sound_study(service: Service) -> None:
    assert disagreements(service.place(), NAME) == []


@pytest.mark.parametrize(("where", "truth", "lie", "found"), [
    (r"^/studies/\w+/trials/0$", "<code>0.0002</code>", "<code>0.0003</code>", "the console, trial 0: learning_rate"),
    (r"^/studies/\w+/trials/1$", r"chip (complete|pruned)\">\1", 'chip failed">failed', "the console, trial 1: state"),
    (r"^trial list \w+ -o json$", r'"lora_r": 8\b', '"lora_r": 2', "hpo trial list -o json, trial 0: lora_r is 2"),
    (r"^trial list \w+$", r"0\.0002 ", "0.0004 ", "hpo trial list, trial 0: learning_rate is '0.0004'"),
    (r"^/api/studies/\d+$", r"0\.0002", "0.0005", "the dashboard, trial 0: learning_rate is '0.0005'"),
    (r"^/csv/\d+$", r"(?m)^(0,.*),0\.0002,", r"\1,0.0006,",
     "the dashboard's CSV, trial 0: learning_rate is '0.0006'"),
    (r"format=axolotl$", r"(?m)^learning_rate: .*$", "learning_rate: 0.5",
     "learning_rate is 0.5 in the export axolotl"),
    (r"format=peft$", r'"r": \d+', '"r": 1', "lora_r is 1 in the export peft"),
    (r"format=kustomize$", r"LORA_R=\d+", "LORA_R=1", "lora_r is '1' in the export kustomize"),
    (r"^study show", r"(?m)^best +trial \d+", "best trial 77", "hpo study show names 'best trial 77' as the best"),
    (r"^study show", r"\d+\.\d% (better|worse) than the baseline", r"99.9% better than the baseline",
     "hpo study show says '99.9% better than the baseline"),
    (r"^/api/studies/\d+$", r"(?s).*\*\*Best: trial.*", "11.3% better than the baseline (trial 0).",
     "the dashboard's note says '11.3% better than the baseline"),
    (r"report", r"loss after \d+ examples, with the search's one seed", "loss after 999 examples (one new seed)",
     "the report's table of both is not headed"),
    (r"report", r"\| parameter \| trial \d+", "| parameter | trial 77", "the report names"),
])  # fmt: skip
def test_a_lie_is_found(service: Service, where: str, truth: str, lie: str, found: str) -> None:
    wrong = disagreements(lying(service.place(), where, truth, lie), NAME)
    assert any(found in sentence for sentence in wrong), wrong


def test_a_snapshot_of_another_trial_is_found(service: Service, tmp_path: Path) -> None:
    """What was trained is what snapshots hold, whatever the tables say."""
    place = service.place()
    for manifest in place.snapshots.glob("*/*/**/manifest.json"):
        copy = tmp_path / manifest.relative_to(place.snapshots)
        copy.parent.mkdir(parents=True)
        text = re.sub(r'"trial_digest":\s*"[0-9a-f]{4}', '"trial_digest":"0000', manifest.read_text())
        copy.write_text(text)
        copy.with_name("adapter_config.json").write_text(manifest.with_name("adapter_config.json").read_text())
    wrong = disagreements(replace(place, snapshots=tmp_path), NAME)
    assert any("is of another trial than the tables tell" in sentence for sentence in wrong), wrong
