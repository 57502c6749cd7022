"""The command line in this process, where many studies are asked about and a process each would take too long."""

import subprocess

from typer.testing import CliRunner

from hpo_service.cli import app


def hpo(url: str, key: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`hpo ARGUMENTS` against the service at `url`."""
    environment = {"HPO_URL": url, "HPO_API_KEY": key, "COLUMNS": "400"}
    ran = CliRunner().invoke(app, list(arguments), env=environment)
    told = ran.stderr if ran.exception is None else f"{ran.stderr}{ran.exception!r}"
    return subprocess.CompletedProcess(arguments, ran.exit_code, ran.stdout, told)
