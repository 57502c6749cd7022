"""`hpo demo`: everything at once, on its own home, with a real study."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

import hpo_service
from hpo_service.cli.confirmation import bill_of, sentence_of
from hpo_service.cli.documents import apply_settings, read_document
from hpo_service.cli.export_file import Destination, ExportFormat, write
from hpo_service.cli.output import say, show_table, stdout
from hpo_service.cli.services import load_settings
from hpo_service.cli.views import gain_sentence, saved, spent
from hpo_service.cli.watch import EXIT_STUDY_FAILED, follow_to_end
from hpo_service.client.http import Client, study_path
from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.local.home import Home, free_port
from hpo_service.local.supervisor import Supervisor

_CLONE = Path(hpo_service.__file__).resolve().parent.parent
_CHECK_SECONDS = 0.2
_MODEL_FOLDER = "smollm2"


class DemoModel(StrEnum):
    """What the demo fine-tunes."""

    TINY = "tiny"
    SMOLLM2 = "smollm2"


def demo(
    model: Annotated[DemoModel, typer.Option(help="tiny: two minutes; smollm2: a real chat model, 20 minutes.")] = (
        DemoModel.TINY
    ),
    home: Annotated[Path | None, typer.Option(help="Folder for everything (default: .demo in the clone).")] = None,
) -> None:
    """Start everything, search with a real model and real data, export the best. Needs a clone of the repository."""
    signal.signal(signal.SIGTERM, _interrupt)
    folder = (home or _CLONE / ".demo").expanduser().resolve()
    final: dict[str, Any] = {}
    try:
        spec = _spec(model, folder)
        with _service(_settings(folder)) as service:
            final = _search(service, spec)
            _report(service, final, folder / "best.yaml")
            if _stays():
                link = service.client.post("/v1/login-links")["url"]
                say(f"Everything stays up until Ctrl-C. Log in, once, within ten minutes: {link}")
                service.wait()
    except KeyboardInterrupt:
        say("Stopped." if final else "Stopped. The study goes on with the next demo.")
        raise typer.Exit(0 if final else 130) from None
    if final.get("state") == StudyState.FAILED:
        raise typer.Exit(EXIT_STUDY_FAILED)


class _Service:
    """The running service: a client, and a thread that keeps its processes alive."""

    def __init__(self, supervisor: Supervisor, client: Client) -> None:
        self.client = client
        self._supervisor = supervisor
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._keep_running, name="supervisor")
        self._thread.start()

    def check(self) -> None:
        """Raise what the supervisor gave up for."""
        if self._error:
            raise self._error

    def wait(self) -> None:
        """Until Ctrl-C, or until the service cannot be kept running."""
        self._thread.join()
        self.check()

    def close(self) -> None:
        """Stop looking after the processes."""
        self._stop.set()
        self._thread.join()

    def _keep_running(self) -> None:
        try:
            while not self._stop.wait(_CHECK_SECONDS):
                self._supervisor.check()
        except Exception as error:
            self._error = error


@contextmanager
def _service(settings: Settings) -> Iterator[_Service]:
    with Supervisor(settings, say) as supervisor:
        say(f"Starting the service on {settings.home_path()} ...")
        started = supervisor.start()
        say(f"It answers at {started.url}. Watch in a browser, once: {started.login_link}")
        with Client(started.url, Home(settings.home_path()).key()) as client:
            service = _Service(supervisor, client)
            try:
                yield service
            finally:
                service.close()
                say("Stopping ...")


def _settings(folder: Path) -> Settings:
    settings = load_settings(home=folder)
    changes: dict[str, Any] = {"roots": settings.roots or (_CLONE, folder)}
    if "HPO_PORT" not in os.environ:
        changes["port"] = free_port(settings.host, settings.port)
    return settings.model_copy(update=changes)


def _spec(model: DemoModel, folder: Path) -> dict[str, Any]:
    examples = _CLONE / "examples"
    file = examples / ("demo-study.yaml" if model is DemoModel.TINY else "smollm2/demo-study.yaml")
    if not file.is_file():
        raise SetupError(f"{file} does not exist: the demo needs a clone of the repository, not an installed package.")
    spec = read_document(str(file))
    if model is DemoModel.SMOLLM2:
        converted = folder / "cache" / _MODEL_FOLDER
        _convert(examples / "smollm2" / "convert.py", converted)
        return apply_settings(spec, [f"model.path={converted}"])
    return spec


def _convert(script: Path, folder: Path) -> None:
    if (folder / "model.safetensors").is_file():
        return
    say("Converting SmolLM2-135M once (about a minute) ...")
    done = subprocess.run([sys.executable, str(script), "--output", str(folder)], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(f"SmolLM2 could not be converted: {reason}")


def _search(service: _Service, spec: dict[str, Any]) -> dict[str, Any]:
    client = service.client
    name, known = _next_name(client, spec["metadata"]["name"])
    if known is None:
        client.create_study(apply_settings(spec, [f"metadata.name={name}"]))
        say(f"Study {name} has started.")
    else:
        say(f"Study {name} was not finished; it goes on.")
        if known["state"] in (StudyState.PAUSED, StudyState.PAUSING):
            client.post(f"{study_path(name)}:resume")
    return follow_to_end(client, name, service.check)


def _next_name(client: Client, base: str) -> tuple[str, dict[str, Any] | None]:
    """The first of base, base-2, base-3, ... that has not ended, with its study if there is one."""
    studies = {study["name"]: study for study in client.pages("/v1/studies")}
    number = 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        study = studies.get(name)
        if study is None or study["state"] not in TERMINAL:
            return name, study
        number += 1


def _report(service: _Service, study: dict[str, Any], file: Path) -> None:
    console = stdout()
    console.print(f"\nStudy {study['name']} is {study['state']}{': ' + study['message'] if study['message'] else ''}")
    best = study["best"]
    if best is None:
        console.print("No trial has reached its first evaluation.")
        return
    show_table(("parameter", "best value"), list(best["parameters"].items()))
    exported = Destination().fetch(service.client, f"{study_path(study['name'])}/best", ExportFormat.YAML)
    write(file, exported.text)
    for label, value in (
        ("best", f"trial {best['trial_number']}, loss {best['loss']:.4f}{' (provisional)' * best['provisional']}"),
        ("gain", gain_sentence(best)),
        ("confirmation", sentence_of(study)),
        ("confirming took", bill_of(study)),
        ("saved by pruning", saved(study)),
        ("spent", spent(study)),
        ("config", str(file)),
        ("train with it", f"python -m trainer run {file}"),
        ("dashboard", f"{service.client.url}{study['dashboard'] or '/dashboard'}"),
        ("bring it up again", f"HPO_HOME={file.parent} hpo up"),
    ):
        if value is not None:
            console.print(f"{label + ':':19}{value}", soft_wrap=True)


def _stays() -> bool:
    return sys.stdout.isatty() and os.environ.get("DEMO_EXIT") != "1"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
