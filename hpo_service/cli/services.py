"""`hpo up`, `serve`, `dispatch`, `outbox`, `migrate` and `login`: running the service and getting into it."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from hpo_service.cli.connection import connect
from hpo_service.cli.output import say
from hpo_service.client.http import study_path
from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings, secret_names

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


def up(
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: HPO_PORT or 8080).")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for everything (default: HPO_HOME).")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="MLflow's server as well, told of every study.")] = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C: database, API, dashboard, dispatcher, workers."""
    from trainer.common.logs import show_stacks_on_request

    show_stacks_on_request()
    from hpo_service.local.supervisor import Supervisor, stop_on_signals

    settings = load_settings(port=port, home=home)
    stop = stop_on_signals()
    with Supervisor(settings, say, with_mlflow=mlflow) as supervisor:
        started = supervisor.start()
        if started.new_key:
            say(f"An admin key was made: {settings.home_path() / 'admin.key'} (the CLI finds it there).")
        say(f"hpo answers at {started.url}; its data lives in {settings.home_path()}.")
        say(f"Open it in a browser, once, within ten minutes: {started.login_link}")
        if started.mlflow_url is not None:
            say(f"MLflow opens at {started.mlflow_url} within a minute, for everybody on this machine.")
        say("Another link: hpo login. Stop with Ctrl-C; studies go on at the next start.")
        supervisor.run_until(stop)
        say("Stopping ...")


def serve(supervised: Supervised = False) -> None:
    """Run the API alone (production: beside `hpo dispatch`, on HPO_DATABASE_URL)."""
    from hpo_service.api.process import run_api

    if supervised:
        _end_with_parent()
    run_api(load_settings())


def dispatch(supervised: Supervised = False) -> None:
    """Run the dispatcher and its local workers alone."""
    from hpo_service.dispatcher import run_dispatcher

    if supervised:
        _end_with_parent()
    run_dispatcher(load_settings())


def outbox(supervised: Supervised = False) -> None:
    """Tell MLflow, webhooks and Slack what studies do (production: beside `hpo dispatch`)."""
    from hpo_service.integrations.process import run_outbox
    from hpo_service.local.supervisor import stop_on_signals

    if supervised:
        _end_with_parent()
    run_outbox(load_settings(), stop_on_signals())


def migrate() -> None:
    """Bring the database of HPO_DATABASE_URL (or of HPO_HOME) to this version's schema."""
    from hpo_service.local.supervisor import database_url
    from hpo_service.storage.database import describe, prepare

    url = database_url(load_settings())
    prepare(url)
    say(f"The {describe(url)} is up to date.")


def login(
    study: Annotated[str | None, typer.Argument(help="With --notebook: the study; otherwise the newest.")] = None,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Print lines for a notebook anywhere: a study as an Optuna study.")
    ] = False,
) -> None:
    """Print a link that logs one browser in, once, within ten minutes."""
    if study and not notebook:
        raise typer.BadParameter("A study is named with --notebook only.", param_hint="STUDY")
    with connect() as client:
        if not notebook:
            typer.echo(client.post("/v1/login-links")["url"])
            return
        found = [client.get(study_path(study))] if study else client.get("/v1/studies", page_size=1)["items"]
        name = found[0]["name"] if found else "STUDY"
        typer.echo("from hpo_service.notebook import load_study")
        typer.echo(f"study = load_study({name!r}, url={client.url!r})  # a copy in memory")
        say("The notebook needs this package and, in HPO_API_KEY, a key: `hpo key create LABEL --scope study:read`.")


def load_settings(*, port: int | None = None, home: Path | None = None) -> Settings:
    """Settings of the environment, with what the command line says instead. Raises SetupError if they are wrong."""
    changes: dict[str, Any] = {"port": port, "home": home}
    try:
        return Settings(**{name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "HPO_" + "_".join(str(part) for part in first["loc"]).upper()
        said = "" if first["loc"][0] in secret_names() else f" is {os.environ.get(name, first['input'])!r}"
        raise SetupError(f"{name}{said}: {first['msg']}.") from None


def _end_with_parent() -> None:
    from hpo_service.core.child_process import end_with_parent

    end_with_parent()
