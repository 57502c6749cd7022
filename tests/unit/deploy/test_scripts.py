"""Shell scripts by shellcheck, systemd's units by systemd-analyze, the Slurm job by what sbatch would read."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from SystemdUnitParser import SystemdUnitParser

from tests.unit.deploy.conftest import DEPLOY, Tools

SCRIPTS = sorted(path for path in DEPLOY.rglob("*") if path.suffix in (".sh", ".sbatch"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
#: what systemd-analyze says on a machine where the service is not installed
_NOT_INSTALLED = re.compile(r"Command /opt/hpo/\S+ is not executable: No such file or directory")


def test_every_script_is_checked() -> None:
    assert {path.name for path in SCRIPTS} >= {"backup.sh", "restore.sh", "worker.sbatch", "roles.sh", "ray-node.sh"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(tools: Tools, script: Path) -> None:
    said = tools.run("shellcheck", "--external-sources", "--source-path", str(DEPLOY.parent), script)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_are_hardened(unit: Path) -> None:
    parser = SystemdUnitParser()
    parser.read(unit)
    service = dict(parser["Service"])
    assert service["User"] == "hpo"
    hardened = (
        "NoNewPrivileges",
        "RestrictSUIDSGID",
        "LockPersonality",
        "ProtectKernelModules",
        "ProtectControlGroups",
    )
    assert all(service[name] == "yes" for name in hardened)
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert "Environment" not in service or "postgresql://" not in str(service["Environment"])


# It comes with systemd only, which containers do not have; the parser's tests above need nothing.
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_reads_the_units() -> None:
    files = [*UNITS, *(DEPLOY / "systemd").glob("*.timer")]
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False, timeout=60
    )
    lines = [line for line in said.stderr.splitlines() if not _NOT_INSTALLED.search(line)]
    assert lines == []


def test_the_slurm_job_can_be_read() -> None:
    """Options stand before the first command, and each is one that sbatch knows."""
    lines = (DEPLOY / "slurm" / "worker.sbatch").read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    options = {
        name: value for line in lines[:first] for name, value in re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", line)
    }
    assert len(options) == sum(line.startswith("#SBATCH") for line in lines)
    assert not any("#SBATCH" in line for line in lines[first:])
    known = {
        "job-name",
        "ntasks-per-node",
        "gpus-per-node",
        "cpus-per-task",
        "mem",
        "time",
        "requeue",
        "output",
        "signal",
    }
    assert set(options) <= known | {"open-mode"}
    assert options["ntasks-per-node"] == "1"
    assert options["signal"] == "TERM@120"


def run_job(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The job with a `srun` and a `ray` that say what they are told."""
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True, exist_ok=True)
    programs = {
        tmp_path / "srun": 'shift; exec "$@"',
        venv / "ray": 'echo "ray $* token=$(cat "$RAY_AUTH_TOKEN_PATH")"',
    }
    for path, body in programs.items():
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    base = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "HPO_VENV": str(tmp_path / "venv"),
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_GPUS_ON_NODE": "2",
    }
    return subprocess.run(
        ["bash", DEPLOY / "slurm" / "worker.sbatch"],
        env=base | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def test_a_node_of_the_job_joins_the_cluster(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    assert "RAY_ADDRESS" in run_job(tmp_path).stderr
    assert "holds no token" in run_job(tmp_path, RAY_ADDRESS="head:6379").stderr
    token.parent.mkdir()
    token.write_text("secret")
    done = run_job(tmp_path, RAY_ADDRESS="head:6379")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "ray start --block --address=head:6379 --temp-dir=/tmp/ray-7 --num-cpus=4 --num-gpus=2 token=secret"
    )


def test_node_scripts_start_what_they_say(tmp_path: Path) -> None:
    for name in ("ray", "hpo"):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "{name} $*"\n')
        path.chmod(0o755)

    def said(script: str, **environment: str) -> str:
        done = subprocess.run(
            [DEPLOY / "docker" / script],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout if done.returncode == 0 else done.stderr

    assert said("ray-node.sh", RAY_HEAD="1").startswith(
        "ray start --block --head --port=6379 --num-cpus=0 --num-gpus=0"
    )
    assert said("ray-node.sh", RAY_ADDRESS="h:1") == "ray start --block --address=h:1\n"
    assert '--resources={"slot": 2}' in said("ray-node.sh", RAY_ADDRESS="h:1", RAY_SLOTS="2")
    assert "RAY_ADDRESS" in said("ray-node.sh")
    assert said("dispatch-on-ray.sh", RAY_ADDRESS="h:1").splitlines() == [
        "ray start --address=h:1 --num-cpus=0 --num-gpus=0",
        "hpo dispatch",
    ]
