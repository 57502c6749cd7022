"""The exported best parameters, trained alone, give the loss that the study tells, to the last digit."""

import json
import subprocess
import sys
from pathlib import Path

from optuna.trial import TrialState

from tests.consistency import trials
from tests.consistency.place import Place
from tests.e2e.service import ROOT

_MOST_SECONDS = 300


def retrained_differs(place: Place, study: str, folder: Path) -> list[str]:
    """Empty if `python -m trainer run` of the best's export ends at the trial's own loss."""
    best = place.get(f"/v1/studies/{study}")["best"]
    file = folder / "best.yaml"
    place.command("best", study, "--format", "yaml", "-o", str(file))
    command = [sys.executable, "-m", "trainer", "run", str(file), "--output-dir", str(folder / "run")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    if ran.returncode != 0:
        return [f"{study}: python -m trainer run of its export ends with {ran.returncode}: {ran.stderr[-2000:]}"]
    loss = json.loads(ran.stdout.splitlines()[-1])["eval_loss"]
    trial = trials.tables(place, study)[best["trial_number"]]
    if trial.state is not TrialState.COMPLETE:  # confirmed, or all that there is: the search did not train it so far
        return []
    searched = trial.values[0]
    return [] if loss == searched else [f"{study}: its export trains to {loss!r}, the trial ended at {searched!r}"]
