"""Where everything lives: the only reader of the environment."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from everloop.domain.errors import EverloopError, SpecError
from everloop.domain.spec import ModelSpec, ServingSpec, parse_spec

PROJECT = Path(__file__).resolve().parent.parent
WORK_POOL = "everloop"

Absolute = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class Settings(BaseSettings):
    """`EVERLOOP_*` variables and their defaults."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_", env_ignore_empty=True, frozen=True, extra="ignore")

    home: Absolute = Field(PROJECT / ".everloop", description="Everything this machine keeps.")
    models: Absolute = Field(PROJECT / "models", description="One folder a model.")
    data: Absolute = Field(PROJECT, description="What relative sources in the specs are relative to.")
    database_url: str = Field("", description="SQLAlchemy URL of the decision store; empty: SQLite under home.")
    mlflow_uri: str = Field("", description="MLflow tracking and registry URI; empty: SQLite under home.")
    prefect_api_url: str = Field("", description="A Prefect server of your own; empty: the one `everloop up` starts.")
    prefect_port: int = Field(4200, ge=1, le=65535, description="Port of the Prefect server that `everloop up` starts.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="Port of the MLflow UI that `everloop up` starts.")
    service_ports: dict[str, int] = Field({}, description="Port of a model's service, over its spec's.")
    capture: Absolute | None = Field(None, description="Folder of captured predictions; default: home/inference.")
    serving: ServingSpec | None = Field(
        None, description="Set by `everloop serve` for its workers: the `[serving]` of today's spec."
    )
    following: Absolute | None = Field(
        None,
        description="Set by `everloop serve` for its workers; without it a service serves its own bento's version.",
    )
    segment_bytes: int = Field(16_000_000, ge=1000, description="Size at which a capture segment is closed.")
    segment_seconds: float = Field(3600.0, gt=0, description="Age at which a capture segment is closed.")
    keep_days: float = Field(730.0, gt=0, description="Age at which captured rows and labels are deleted.")
    keep_bytes: int = Field(
        50_000_000_000,
        ge=1,
        description="Size of a model's captured rows, and of its labels, above which the oldest go.",
    )
    keep_profile_days: float = Field(
        730.0, gt=0, description="Age at which profiles and reports of windows are deleted."
    )
    alert_block: str = Field(
        "",
        description="Prefect notification block that alerts go to, as <type>/<name>, such as slack-webhook/ops; empty: the event feed.",
    )
    poll_seconds: float = Field(1.0, gt=0, description="How often a service looks at the champion alias.")
    refused_seconds: float = Field(30.0, gt=0, description="How long a service waits to try a refused version again.")
    verify_seconds: float = Field(45.0, ge=0, description="How long a release waits for the service to serve it.")
    boot_seconds: float = Field(120.0, gt=0, description="How long a server may take to be ready.")
    lease_seconds: float = Field(60.0, gt=0, description="A claim that is not renewed for so long may be taken over.")
    sweep_seconds: float = Field(
        120.0, ge=0, description="Age at which an unclaimed decision is started by the next monitor."
    )
    max_attempts: int = Field(3, ge=1, description="Runs that may claim one decision before it is given up.")
    threads: int = Field(
        max(1, (os.cpu_count() or 2) // 2), ge=1, description="OMP threads of a training run; a service uses 1."
    )

    @property
    def mlflow(self) -> str:
        """The tracking and registry URI in force."""
        return self.mlflow_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path | None:
        """Where new experiments keep their artifacts; None: a tracking server of one's own decides."""
        return None if self.mlflow.startswith(("http://", "https://")) else self.home / "mlartifacts"

    @property
    def database(self) -> str:
        """The decision store's URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'everloop.db'}"

    @property
    def prefect_api(self) -> str:
        """The Prefect API's URL in force."""
        return self.prefect_api_url or os.environ.get("PREFECT_API_URL") or f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def inference(self) -> Path:
        """The folder of captured predictions."""
        return self.capture or self.home / "inference"

    @property
    def labels(self) -> Path:
        """The folder of labels."""
        return self.home / "labels"

    @property
    def profiles(self) -> Path:
        """The folder of window profiles."""
        return self.home / "profiles"

    @property
    def reports(self) -> Path:
        """The folder of window reports."""
        return self.home / "reports"

    @property
    def usage(self) -> Path:
        """The folder of hourly usage."""
        return self.home / "usage"

    def keeper_folder(self, model: str) -> Path:
        """Where `everloop serve` of `model` and its workers talk to each other."""
        return self.home / "serving" / model

    def port_of(self, spec: ModelSpec) -> int:
        """The port that the service of `spec` listens on."""
        return self.service_ports.get(spec.name, spec.serving.port)

    def service_url(self, spec: ModelSpec) -> str:
        """The address of the service of `spec`."""
        return f"http://127.0.0.1:{self.port_of(spec)}"

    def api_keys(self, serving: ServingSpec) -> tuple[str, ...]:
        """The API keys that open a service, several during a rotation; none if the spec asks for none.

        Raises:
            EverloopError: the spec names a variable that holds no key.
        """
        if serving.api_key_env is None:
            return ()
        keys = tuple(key.strip() for key in os.environ.get(serving.api_key_env, "").split(",") if key.strip())
        if not keys:
            raise EverloopError(
                f"serving.api_key_env is {serving.api_key_env} and that variable holds no key; set it to one or more keys, "
                "separated by commas"
            )
        return keys

    def environment(self, *, threads: int = 1) -> dict[str, str]:
        """The whole environment for a process of ours: every tool at home in `home`, telemetry off, threads set."""
        ours = {
            **{
                f"EVERLOOP_{name.upper()}": _as_text(value)
                for name, value in self.model_dump(mode="json").items()
                if value is not None
            },
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": self.prefect_api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "everloop",
            # each task makes a client, and each client loads 40 ms of certificates that plain HTTP has no use for
            "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": json.dumps(self.prefect_api.startswith("http://")),
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "BENTOML_HOME": str(self.home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "WHYLOGS_NO_ANALYTICS": "True",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": str(threads),
            "GIT_PYTHON_REFRESH": "quiet",
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
        return {**os.environ, **ours}

    def apply(self) -> None:
        """Afterwards this process, and the tools it imports from now on, use these settings."""
        self.home.mkdir(parents=True, exist_ok=True)
        os.environ.update(self.environment(threads=self.threads))

    def spec(self, model: str) -> ModelSpec:
        """The spec of `model`.

        Raises:
            SpecError: there is no such model, the file is wrong, or it names another model.
        """
        path = self.models / model / "model.toml"
        if not path.is_file():
            known = ", ".join(self.model_names()) or "none"
            raise SpecError(f"{path} does not exist; models here: {known}; add the folder {model}/ with a model.toml")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise SpecError(f"{path}: not UTF-8 ({exc.reason} at byte {exc.start}); save the file as UTF-8") from exc
        spec = parse_spec(text, origin=str(path))
        if spec.name != model:
            raise SpecError(f"{path}: name is {spec.name!r}, the folder is {model!r}; they must be equal")
        return spec

    def model_names(self) -> list[str]:
        """The folders under `models` that hold a spec, in alphabetical order."""
        return sorted(path.parent.name for path in self.models.glob("*/model.toml"))


def _as_text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        EverloopError: a variable cannot be used.
    """
    try:
        return Settings()
    except ValidationError as exc:
        lines = [
            f"EVERLOOP_{str(e['loc'][0]).upper()} is {e['input']!r}: {e['msg']}; correct or unset it"
            for e in exc.errors()
        ]
        raise EverloopError("\n".join(lines)) from exc
    except SettingsError as exc:  # a table that is no JSON: pydantic names the field only
        found = re.search(r'field "(\w+)"', str(exc))
        name = f"EVERLOOP_{found[1].upper()}" if found else "EVERLOOP_*"
        raise EverloopError(
            f'{name} is {os.environ.get(name)!r}: a table is written as JSON, {{"name": 3001}}; correct or unset it'
        ) from exc
