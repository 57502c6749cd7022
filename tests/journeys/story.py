"""One study of a user's, from its file to its delivery, through the command line, and what must be so afterwards."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.consistency.place import Place
from tests.consistency.promotion import promotion_disagrees
from tests.consistency.retrained import retrained_differs
from tests.consistency.study import disagreements
from tests.e2e.service import Service
from tests.journeys.rows import Row
from tests.journeys.written import MORE_TRIALS, TEAM_FILE, WIDER_RANKS, spec

Json = dict[str, Any]
_STATE_SECONDS = 180


@dataclass
class Story:
    """A row that is lived on `service`; its files lie below `folder`."""

    row: Row
    name: str
    service: Service
    place: Place
    folder: Path
    past: str

    def live(self) -> list[str]:
        """Do all that the row names; every sentence that is not so afterwards."""
        self._begin()
        if self.row.pause:
            self._pause()
        if self.row.extend:
            self._extend()
        if self.row.pause:
            self._hpo("study", "resume", self.name)
        if self.row.kill:
            self._kill_the_worker()
        study = self.service.wait_for_end(self.name)
        wrong = [f"{self.name} is {study['state']}: {study['message']}"] if study["state"] != "completed" else []
        wrong += disagreements(self.place, self.name) + self._done()
        wrong += retrained_differs(self.place, self.name, self.folder)
        if self.row.promote:
            wrong += self._promote()
        return wrong + (self._merge() if self.row.merge else [])

    def _begin(self) -> None:
        file = self.folder / "study.yaml"
        self.folder.mkdir()
        file.write_text(yaml.safe_dump(spec(self.row, self.name, self.folder, self.past)))
        self._hpo("study", "validate", "-f", str(file), "--wait")
        self._hpo("study", "create", "-f", str(file))

    def _pause(self) -> None:
        self.service.wait_for_reports(self.name, 2)
        self._hpo("study", "pause", self.name)
        self._until("paused")

    def _extend(self) -> None:
        """While it is paused if the row pauses it, else while it runs."""
        self.service.wait_for_reports(self.name, 1)
        ranks = f"space.lora_r.choices={json.dumps(WIDER_RANKS)}"
        self._hpo("study", "extend", self.name, "--set", f"budget.max_trials={MORE_TRIALS}", "--set", ranks)

    def _kill_the_worker(self) -> None:
        """While a slice runs, as far as can be seen from outside; when it is on its way back, none is tried again."""
        self.service.wait_for_reports(self.name, 3)
        self.service.wait(self._runs, _STATE_SECONDS, "a slice to run")
        assert self.service.processes("worker")
        self.service.kill("worker")

    def _runs(self) -> bool:
        return any(trial["state"] == "RUNNING" and not trial["paused"] for trial in self._trials())

    def _until(self, state: str) -> None:
        self.service.wait(lambda: self.service.study(self.name).get("state") == state, _STATE_SECONDS, state)

    def _done(self) -> list[str]:
        """What the row asked for beyond a study."""
        study, wrong = self.service.study(self.name), []
        if self.row.extend:
            widened = study["resolved"]["space"]["parameters"]["lora_r"]["values"]
            if widened != WIDER_RANKS or study["max_trials"] != MORE_TRIALS:
                wrong.append(
                    f"extended to {MORE_TRIALS} trials and {WIDER_RANKS}, it has {study['max_trials']}, {widened}"
                )
        if self.row.confirm and study["confirmation"]["state"] != "completed":
            wrong.append(f"the confirmation is {study['confirmation']['state']}: {study['confirmation']['message']}")
        if self.row.warm_start == "named" and [past["study"] for past in study["past"]] != [self.past]:
            wrong.append(f"it was told to learn from {self.past} and learns from {study['past']}")
        return wrong

    def _trials(self) -> list[Json]:
        return self.service.trials(self.name)

    def _promote(self) -> list[str]:
        promotion = f"{self.name}-bot"
        self._hpo("promote", self.name, "--to", promotion)
        wrong = promotion_disagrees(self.place, self.name, promotion)
        if self.row.deliver == "no":
            return wrong
        options = ["--merge"] if self.row.deliver == "merged" else []
        made = json.loads(self._hpo("deliver", promotion, *options, "-o", "json"))
        losses, whole = made["losses"], self._best_is_complete()
        if made["state"] != "completed" or losses["reused"] is not whole:
            wrong.append(f"the delivery is {made['state']}: {made['message']}, {losses}")
        if whole and losses["loss"] != losses["promoted_loss"]:
            wrong.append(f"the delivered loss is {losses['loss']}, the promoted one {losses['promoted_loss']}")
        if self.row.test_rows and losses["test_loss"] is None:
            wrong.append("the delivery has no loss on the test rows")
        kinds = [artifact["name"] for artifact in made["artifacts"]]
        if kinds != ["adapter", *(["merged"] if options else [])]:
            wrong.append(f"the delivery made {kinds}")
        return wrong

    def _best_is_complete(self) -> bool:
        """Whether its adapter is there; a confirmed trial need not have been trained to its end in the search."""
        number = self.service.study(self.name)["best"]["trial_number"]
        return any(trial["number"] == number and trial["state"] == "COMPLETE" for trial in self._trials())

    def _merge(self) -> list[str]:
        """Only hyperparameters change in a file that a team owns, and they are the best trial's."""
        file = self.folder / "axolotl.yaml"
        file.write_text(TEAM_FILE)
        self._hpo("best", self.name, "--format", "axolotl", "--merge", str(file))
        before, after = yaml.safe_load(TEAM_FILE), yaml.safe_load(file.read_text())
        best = self.service.study(self.name)["best"]["parameters"]
        wrong = [f"{key} of the team's file became {after.get(key)!r}" for key in ("base_model", "datasets",
                 "sequence_len", "wandb") if after.get(key) != before[key]]  # fmt: skip
        for key in ("learning_rate", "lora_r", "lora_alpha"):
            if after[key] != best[key]:
                wrong.append(f"{key} of the merged file is {after[key]!r}, of the best trial {best[key]!r}")
        lines = file.read_text().splitlines()
        wrong += [f"the line {line!r} of the team's file is gone" for line in TEAM_FILE.splitlines()
                  if line not in lines and not line.startswith(("learning_rate", "lora_"))]  # fmt: skip
        return wrong

    def _hpo(self, *arguments: str) -> str:
        ran: subprocess.CompletedProcess[str] = self.service.run(*arguments)
        assert ran.returncode == 0, f"hpo {' '.join(arguments)}: {ran.stderr[-3000:]}"
        assert "Traceback" not in ran.stderr, ran.stderr
        print(ran.stderr, file=sys.stderr, end="")
        return ran.stdout
