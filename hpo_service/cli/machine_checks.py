"""What `hpo doctor` looks at where workers run: GPUs, driver, libraries; Ray and sinks where they are used."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import httpx
from pydantic import ValidationError

from hpo_service.cli.findings import Finding, finding
from hpo_service.core.errors import HpoError, SetupError
from hpo_service.core.settings import Settings, without_secrets
from hpo_service.integrations.switches import require_mlflow, require_wandb, require_webhook
from hpo_service.local.home import Home
from trainer.spec.installation import Installation

_LOOK_SECONDS = 120.0
_RAY_SECONDS = 40.0
_MLFLOW_SECONDS = 5.0
_LEAST_SHARED_BYTES = 1024**3


def check_devices() -> list[Finding]:
    """In a process of its own: this one loads no torch. Nothing where torch is not installed."""
    if find_spec("torch") is None:
        return []
    command = [sys.executable, "-m", "trainer.commands.installation"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LOOK_SECONDS).stdout
        return judge_devices(Installation.model_validate_json(said.splitlines()[-1]))
    except (subprocess.SubprocessError, ValidationError, IndexError) as error:
        why = f"{type(error).__name__}: the libraries cannot be loaded"
        return [finding("gpus", False, why, f"Look at what this says: {' '.join(command)}")]


def judge_devices(found: Installation) -> list[Finding]:
    """Without GPUs everything runs on the CPU, which is no fault."""
    if not found.gpus:
        cpu = "none; trials run on the CPU" if found.driver is None else f"none, though driver {found.driver} is there"
        return [finding("gpus", True, cpu), _deepspeed(found)]
    names = ", ".join(f"{gpu.name} ({gpu.memory_bytes / 1024**3:.0f} GB)" for gpu in found.gpus)
    hidden = found.visible == 0
    return [
        finding(
            "gpus",
            not hidden,
            f"{names}; torch sees {found.visible} of {len(found.gpus)}",
            f"torch {found.torch.version} is built for CUDA {found.cuda}: install a driver for it, or a torch for "
            f"driver {found.driver}; CUDA_VISIBLE_DEVICES must not hide them.",
        ),
        finding("driver", found.driver is not None, f"{found.driver}, torch is built for CUDA {found.cuda}"),
        _flash_attn(found),
        _deepspeed(found),
    ]


def _flash_attn(found: Installation) -> Finding:
    part = found.flash_attn
    if part.version is None:
        return finding("flash-attn", True, "not installed; sdpa is used (pip install 'hpo-service[flash-attn]')")
    remedy = "Build it against the installed torch: pip install --no-build-isolation --no-binary flash-attn flash-attn"
    return finding("flash-attn", not part.problem, part.problem or part.version, remedy)


def _deepspeed(found: Installation) -> Finding:
    part = found.deepspeed
    if part.version is None:
        return finding("deepspeed", True, "not installed; trials on several GPUs need the extra zero")
    remedy = "Install a C++ compiler and ninja, and on GPUs the CUDA toolkit of torch's version; `ds_report` says more."
    return finding(
        "deepspeed", not part.problem, f"{part.version}{', ' + part.problem if part.problem else ''}", remedy
    )


def check_shared_memory(settings: Settings) -> list[Finding]:
    """Ray and the ranks of a worker group talk through it; containers get 64 MB by default."""
    folder = Path("/dev/shm")  # noqa: S108
    from hpo_service.executors.gpus import visible_gpus

    workers = len(visible_gpus(os.environ) or ()) if settings.workers is None else settings.workers
    if not folder.is_dir() or (settings.executor == "local" and workers <= 1):
        return []
    size_bytes = shutil.disk_usage(folder).total
    remedy = "Give the container more shared memory (docker: --shm-size=8g; Kubernetes: an emptyDir of medium Memory)."
    return [finding("shared memory", size_bytes >= _LEAST_SHARED_BYTES, f"{size_bytes / 1024**3:.1f} GB", remedy)]


def check_ray(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Its token, and whether the head answers; nothing with local workers."""
    if settings.executor != "ray":
        return []
    if find_spec("ray") is None:
        return [finding("ray", False, "not installed", "pip install 'hpo-service[ray]'")]
    from hpo_service.executors.ray.start import require_address, require_token

    try:
        require_token(environment)
        address = require_address(settings.ray_address)
    except (HpoError, OSError) as error:
        sentence, _, remedy = str(error).partition(". ")
        return [finding("ray token", False, sentence, remedy)]
    return [finding("ray token", True, "set"), _ray_head(address)]


def _ray_head(address: str) -> Finding:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        answers = subprocess.run(command, capture_output=True, check=False, timeout=_RAY_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        answers = False
    remedy = f"Start the head at {address}, open the way to it, and give this machine the same token."
    return finding("ray head", answers, f"{address} {'answers' if answers else 'does not answer'}", remedy)


def check_sinks(settings: Settings) -> list[Finding]:
    """Those that studies are told to and that cannot be told; of MLflow's server also whether it answers."""
    others = (("webhook", require_webhook), ("wandb", require_wandb))
    found = [_usable(name, require, settings) for name, require in others]
    return [*(one for one in found if one is not None), *check_mlflow(settings)]


def check_mlflow(settings: Settings) -> list[Finding]:
    """The server that studies are told to: one that is named, or that of `hpo up --mlflow`. Nothing without one."""
    url = settings.mlflow_uri() or Home(settings.home_path()).mlflow_url()
    if url is None:
        return []
    if (problem := _usable("mlflow", require_mlflow, settings)) is not None:
        return [problem]
    return [_mlflow_server(url)]


def _usable(name: str, require: Callable[[Settings], None], settings: Settings) -> Finding | None:
    """What is wrong, if anything is."""
    try:
        require(settings)
    except SetupError as error:
        sentence, _, remedy = error.detail.partition("; ")
        return finding(name, False, sentence, remedy)
    return None


def _mlflow_server(url: str) -> Finding:
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health", timeout=_MLFLOW_SECONDS, trust_env=False)
        problem = "" if answer.is_success else f"says {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"does not answer ({type(error).__name__})"
    remedy = "Start MLflow's server, correct MLFLOW_TRACKING_URI, or add this host to its --allowed-hosts."
    return finding("mlflow", not problem, f"{without_secrets(url)} {problem or 'answers'}", remedy)
