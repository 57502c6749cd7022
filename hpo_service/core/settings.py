"""One frozen object with everything configurable from outside, built once at start and passed down."""

import os
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit, urlunsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from hpo_service.core.errors import SetupError
from trainer.common.errors import UserError
from trainer.common.logs import LogFormat
from trainer.snapshots.stores import Store, open_store
from trainer.snapshots.stores.location import parse_location

SECRETS_VARIABLE = "HPO_SECRETS_DIR"
_LEAST_TOKEN_CHARACTERS = 24


class Settings(BaseSettings):
    """Environment variables `HPO_*`, else files of the same name in lower case in the folder `HPO_SECRETS_DIR`.

    Folders are made absolute; nothing is created here.
    """

    model_config = SettingsConfigDict(env_prefix="HPO_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: user_data_path("hpo"))
    """Everything a zero-setup service keeps: database, snapshots, logs, admin key."""
    database_url: SecretStr | None = None
    """A PostgreSQL of yours instead of the embedded one."""
    dashboard_database_url: SecretStr | None = None
    """The same database with a SELECT-only role, for optuna-dashboard. Made by `hpo up` on the embedded server."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders (separated by `:`) below which models and data may be named; default: the current directory."""
    snapshots: str | None = None
    """Where snapshots live: a folder that all workers see, or an object store (`s3://BUCKET/PREFIX`); default
    `<home>/snapshots`."""
    snapshot_keep_best: Annotated[int, Field(ge=1)] = 3
    """So many trials of a study, the best, keep their adapters; what can still be resumed stays in any case."""
    snapshot_max_bytes: Annotated[int, Field(ge=1)] | None = None
    """Where all snapshots together are more, the oldest ended studies keep their best trial's only."""
    executor: Literal["local", "ray"] = "local"
    """Who runs the workers: this machine, or the Ray cluster at RAY_ADDRESS."""
    ray_address: Annotated[str | None, Field(validation_alias="RAY_ADDRESS")] = None
    """HOST:PORT of the cluster's head; the dispatcher's machine is a node of that cluster."""
    ray_resource: Annotated[str, Field(min_length=1)] = "GPU"
    """What the cluster calls a device; on machines without GPUs `CPU`, or a resource of its own."""
    ray_max_devices: Annotated[int, Field(ge=0)] = 0
    """The most devices to ask the cluster for, also such as its autoscaler would have to add; 0: those it has."""
    ray_idle_seconds: Annotated[float, Field(ge=1)] = 300.0
    """A worker of the cluster that nobody needs gives its devices back after so long."""
    ray_orphan_seconds: Annotated[int, Field(ge=30)] = 900
    """A worker of the cluster that no dispatcher speaks to stops after so long, with snapshots."""
    workers: Annotated[int, Field(ge=0, le=64)] | None = None
    """Local workers, a device each; None: one a GPU, and one where there are none."""
    threads_per_worker: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads of each worker; 0: the machine's cores divided by `workers`, and 1 on a cluster."""
    slots_per_worker: Annotated[int, Field(ge=1, le=64)] = 1
    """Slices that one worker runs at the same time, ticked in turn."""
    rank_timeout_seconds: Annotated[float, Field(ge=10, le=86400)] = 600.0
    """The longest that one rank of a worker group waits for another; then the group ends, its slice is tried again."""
    silence_floor_seconds: Annotated[float, Field(ge=1, le=86400)] = 120.0
    """A worker whose slices say nothing for so long, and for `silence_step_multiple` steps, is killed; the slices go on
    elsewhere. Has to cover the writing of a checkpoint."""
    silence_step_multiple: Annotated[float, Field(ge=2, le=10000)] = 20.0
    """Times the slowest step that a training slice has taken so far."""
    silence_start_seconds: Annotated[float, Field(ge=1, le=86400)] = 1800.0
    """The same for a slice that starts: it loads the model, prepares the data and does its first step."""
    silence_evaluation_seconds: Annotated[float, Field(ge=1, le=86400)] = 1800.0
    """The same between two batches of an evaluation, and for the snapshot after it."""
    silence_job_seconds: Annotated[float, Field(ge=1, le=604800)] = 14400.0
    """The longest that a job may take where no slice runs beside it: it says nothing before its end."""
    usd_per_gpu_hour: Annotated[float, Field(ge=0)] = 0.0
    """Price of an hour of one device, for costs in USD; 0: costs are not known."""
    prices: Path | None = None
    """A table (YAML or CSV) of what devices cost; a device that is not in it costs `usd_per_gpu_hour`."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    mlflow_tracking_uri: Annotated[SecretStr | None, Field(validation_alias="MLFLOW_TRACKING_URI")] = None
    """An MLflow server (http:// or https://) that every study is told to; `hpo outbox` does it."""
    mlflow_experiment: Annotated[str, Field(min_length=1, validation_alias="MLFLOW_EXPERIMENT_NAME")] = "hpo"
    """The experiment that runs go to; those of other projects than `default` to `<experiment>/<project>`."""
    wandb_mode: Annotated[str, Field(validation_alias="WANDB_MODE")] = ""
    """`online` or `offline`: every study is told to Weights & Biases; anything else: none is."""
    wandb_project: Annotated[str, Field(min_length=1, validation_alias="WANDB_PROJECT")] = "hpo"
    """The project of project `default`; runs of others go to `<project>-<name>`."""
    mlflow_port: Annotated[int, Field(ge=1, le=65535)] = 5000
    """Where the MLflow server of `hpo up --mlflow` listens, for this machine only."""
    webhook_url: SecretStr | None = None
    """Where notices are posted to, signed with `webhook_secret`."""
    webhook_secret: Annotated[SecretStr | None, Field(min_length=_LEAST_TOKEN_CHARACTERS)] = None
    """`whsec_` and base64, or any text."""
    slack_url: SecretStr | None = None
    """An incoming webhook of Slack's that gets the same notices as sentences."""
    notify_private: bool = False
    """Notices may go to addresses that are not public, and over plain http://."""
    log_format: LogFormat = "text"
    """How every process writes its log: for people, or one JSON object a line."""
    metrics_token: Annotated[SecretStr | None, Field(min_length=_LEAST_TOKEN_CHARACTERS)] = None
    """A bearer token that opens `/metrics` and nothing else; API keys of the first project open it as well."""
    oidc_issuer: str | None = None
    """An OpenID Connect provider that browsers may log in with, as it names itself (https://…)."""
    oidc_client_id: Annotated[str, Field(min_length=1)] | None = None
    """This service's name at the provider."""
    oidc_client_secret: SecretStr | None = None
    """None: the provider knows this service as a public client, with PKCE alone."""
    oidc_redirect_url: str | None = None
    """Where the provider sends browsers back to: `https://HOST/oidc/callback`."""
    oidc_rules: Path | None = None
    """A YAML list of `{claim, value, project, scopes}`: who may do what where."""
    requests_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = 50.0
    """How often one API key may ask one replica of the API, ten seconds' worth of it at once; 0: no limit."""
    failed_logins_per_minute: Annotated[float, Field(ge=0, le=1_000_000)] = 30.0
    """How often one address may come with wrong credentials before it has to wait; 0: no limit."""
    alive_file: Path | None = None
    """Dispatcher and outbox touch this file all the time, so that a probe can see whether one stands still."""
    revision: str = ""
    """The commit that this program was built from; images set it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller says, then the environment, then the files of `HPO_SECRETS_DIR`."""
        folder = os.environ.get(SECRETS_VARIABLE)
        files = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if folder else ()
        return (init_settings, env_settings, *files)

    @field_validator("roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value

    def allowed_roots(self) -> tuple[Path, ...]:
        """The folders below which models and data may be named, resolved."""
        return tuple(root.expanduser().resolve() for root in self.roots or (Path.cwd(),))

    def home_path(self) -> Path:
        """`home`, absolute."""
        return self.home.expanduser().resolve()

    def require_database_url(self) -> str:
        """The database's URL in the clear. Raises SetupError if none is configured."""
        if self.database_url is None:
            raise SetupError(
                "HPO_DATABASE_URL is not set; set it to a postgresql:// URL, or use `hpo up`, which brings its own."
            )
        return self.database_url.get_secret_value()

    def mlflow_uri(self) -> str | None:
        """MLflow's server in the clear; None where there is none."""
        secret = self.mlflow_tracking_uri
        return (secret.get_secret_value() or None) if secret is not None else None

    def mlflow_pages(self) -> str | None:
        """Where a browser finds what MLflow is told, without what may be a secret; None where there is no server."""
        uri = self.mlflow_uri()
        return None if uri is None else without_secrets(uri)

    def snapshot_store(self) -> Store:
        """The snapshot store. Raises SetupError if its URL is wrong or its library is not installed."""
        try:
            return open_store(self.snapshots_location())
        except UserError as error:
            raise SetupError(f"HPO_SNAPSHOTS: {error}.") from error

    def snapshots_location(self) -> str:
        """The snapshot store: an absolute path or a URL. Raises SetupError if HPO_SNAPSHOTS is neither."""
        try:
            return parse_location(self.snapshots or self.home / "snapshots")
        except UserError as error:
            raise SetupError(f"HPO_SNAPSHOTS: {error}.") from error


def without_secrets(uri: str) -> str | None:
    """A server's address for people to read or open; None for what is none."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 (raises, too)
    except ValueError:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def secret_names() -> frozenset[str]:
    """Settings whose values are never shown, under every name that they have."""
    fields = Settings.model_fields.items()
    secret = {name: field for name, field in fields if SecretStr in (field.annotation, *get_args(field.annotation))}
    aliases = (field.validation_alias for field in secret.values())
    return frozenset(secret) | {alias for alias in aliases if isinstance(alias, str)}
