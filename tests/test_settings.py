"""Settings: read from the environment once, handed on whole, and wrong in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from everloop.domain.errors import EverloopError, SpecError
from everloop.settings import PROJECT, Settings, settings
from tests.factories import make_spec

CHANGED: dict[str, Any] = {
    "home": "/somewhere/with a space/home",
    "models": "/somewhere/models",
    "data": "/somewhere/data",
    "database_url": "postgresql+psycopg://me:s3cret@db/everloop",
    "mlflow_uri": "http://mlflow:5000",
    "prefect_api_url": "http://prefect:4200/api",
    "prefect_port": 4201,
    "mlflow_port": 5001,
    "service_ports": {"bikes": 3001, "scooters": 3002},
    "capture": "/somewhere/captured",
    "serving": {"port": 3456, "max_rows": 7, "timeout_seconds": 0.5, "api_key_env": "BIKE_KEYS"},
    "following": "/somewhere/plan",
    "segment_bytes": 5000,
    "segment_seconds": 60.5,
    "keep_days": 30.5,
    "keep_bytes": 1_000_000,
    "keep_profile_days": 31.5,
    "alert_block": "slack-webhook/ops",
    "poll_seconds": 0.25,
    "refused_seconds": 11.5,
    "verify_seconds": 12.5,
    "boot_seconds": 13.5,
    "lease_seconds": 14.5,
    "sweep_seconds": 15.5,
    "max_attempts": 7,
    "threads": 3,
}


@pytest.fixture(autouse=True)
def _no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EVERLOOP_{name.upper()}", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def settings_of_a_child(here: Settings) -> Settings:
    """What a process started with `here`'s environment makes of it."""
    program = "from everloop.settings import settings; print(settings().model_dump_json())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=here.environment(), cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return Settings.model_validate_json(done.stdout)


def test_every_setting_reaches_a_child() -> None:
    here = Settings(**CHANGED)
    assert set(CHANGED) == set(Settings.model_fields), "a setting is not tried here"
    assert not [name for name, field in Settings.model_fields.items() if getattr(here, name) == field.default]
    assert settings_of_a_child(here) == here


def test_defaults_reach_a_child_as_defaults() -> None:
    assert settings_of_a_child(Settings()) == Settings()


def test_everything_lies_under_home_unless_a_setting_moves_it(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    assert here.mlflow == f"sqlite:///{tmp_path}/mlflow.db"
    assert here.database == f"sqlite:///{tmp_path}/everloop.db"
    assert (here.inference, here.labels) == (tmp_path / "inference", tmp_path / "labels")
    moved = Settings(**CHANGED)
    assert (moved.mlflow, moved.database) == (CHANGED["mlflow_uri"], CHANGED["database_url"])
    assert moved.inference == Path(CHANGED["capture"])


def test_the_environment_puts_every_tool_at_home_and_silences_it(tmp_path: Path) -> None:
    made = Settings(home=tmp_path).environment(threads=3)
    assert (made["PREFECT_HOME"], made["BENTOML_HOME"]) == (str(tmp_path / "prefect"), str(tmp_path / "bentoml"))
    assert made["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert made["OMP_NUM_THREADS"] == "3"
    assert made["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert made["BENTOML_DO_NOT_TRACK"] == made["WHYLOGS_NO_ANALYTICS"] == "True"
    assert made["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_relative_paths_are_made_absolute_and_a_tilde_is_home() -> None:
    here = Settings(home="kept", models="~/models")  # type: ignore[arg-type]
    assert here.home == Path.cwd() / "kept"
    assert here.models == Path.home() / "models"


def test_the_prefect_api_is_ours_then_prefects_own_then_the_one_we_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(prefect_port=4300).prefect_api == "http://127.0.0.1:4300/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://theirs/api")
    assert Settings(prefect_port=4300).prefect_api == "http://theirs/api"
    assert Settings(prefect_api_url="http://ours/api").prefect_api == "http://ours/api"


def test_a_service_listens_where_its_spec_says_unless_a_setting_says_otherwise() -> None:
    spec = make_spec(serving={"port": 3456})
    assert Settings().service_url(spec) == "http://127.0.0.1:3456"
    assert Settings(service_ports={"bikes": 3999}).service_url(spec) == "http://127.0.0.1:3999"


@pytest.mark.parametrize(
    ("value", "keys"), [("one", ("one",)), ("new, old", ("new", "old")), (" new ,,old,", ("new", "old"))]
)
def test_the_keys_of_a_service_are_those_in_the_variable_that_its_spec_names(
    monkeypatch: pytest.MonkeyPatch, value: str, keys: tuple[str, ...]
) -> None:
    """Several are separated by commas, so that a key can be exchanged without a gap."""
    monkeypatch.setenv("BIKE_KEYS", value)
    assert Settings().api_keys(make_spec(serving={"api_key_env": "BIKE_KEYS"}).serving) == keys
    assert Settings().api_keys(make_spec(serving={}).serving) == ()


@pytest.mark.parametrize("value", [None, "", " , "])
def test_a_service_that_shall_have_a_key_and_has_none_is_an_error(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """It must not be open because somebody forgot to set a variable."""
    monkeypatch.delenv("BIKE_KEYS", raising=False)
    if value is not None:
        monkeypatch.setenv("BIKE_KEYS", value)
    with pytest.raises(EverloopError, match=r"serving.api_key_env is BIKE_KEYS and that variable holds no key; set it"):
        Settings().api_keys(make_spec(serving={"api_key_env": "BIKE_KEYS"}).serving)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("PREFECT_PORT", "forty", "Input should be a valid integer"),
        ("KEEP_DAYS", "0", "Input should be greater than 0"),
        ("POLL_SECONDS", "0", "Input should be greater than 0"),
        ("MAX_ATTEMPTS", "0", "Input should be greater than or equal to 1"),
        ("SERVICE_PORTS", '{"bikes": "x"}', "Input should be a valid integer"),
        pytest.param(
            "SERVICE_PORTS",
            "bikes=3001",
            "",
        ),
        pytest.param(
            "MLFLOW_PORT",
            "99999",
            "",
        ),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, rule: str
) -> None:
    monkeypatch.setenv(f"EVERLOOP_{name}", value)
    with pytest.raises(EverloopError, match=rf"^EVERLOOP_{name} is '.*': {rule}.*; correct or unset it$") as caught:
        settings.__wrapped__()
    assert "\n" not in str(caught.value)


def test_every_wrong_variable_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLOOP_THREADS", "0")
    monkeypatch.setenv("EVERLOOP_POLL_SECONDS", "soon")
    with pytest.raises(EverloopError, match="EVERLOOP_POLL_SECONDS is 'soon'") as caught:
        settings.__wrapped__()
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["EVERLOOP_POLL_SECONDS", "EVERLOOP_THREADS"]


@pytest.mark.parametrize("name", ["home", "capture"])
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"EVERLOOP_{name.upper()}", "")
    assert getattr(Settings(), name) == Settings.model_fields[name].default


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    """Settings whose models folder holds the specs of two models."""
    for name in ("bikes", "scooters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.toml").write_text(as_toml(name))
    (tmp_path / "notes").mkdir()
    return Settings(models=tmp_path)


def as_toml(name: str) -> str:
    spec = make_spec(name=name).model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    sections = {key: spec.pop(key) for key in ("data", "features", "search", "gates", "serving")}
    candidates = sections["search"].pop("candidates")
    del sections["features"]["ranges"]
    lines = [f"{key} = {json.dumps(value)}" for key, value in spec.items()]
    for title, section in sections.items():
        lines += [f"[{title}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    return "\n".join(
        [*lines, *(f"[[search.candidates]]\nestimator = {json.dumps(c['estimator'])}" for c in candidates)]
    )


def test_the_models_are_the_folders_with_a_spec(here: Settings) -> None:
    assert here.model_names() == ["bikes", "scooters"]
    assert here.spec("scooters").name == "scooters"
    assert here.spec("scooters").text == as_toml("scooters")


@pytest.mark.parametrize("model", ["trams", "notes"])
def test_a_model_that_is_not_there_is_refused_with_those_that_are(here: Settings, model: str) -> None:
    message = (
        f"{model}/model.toml does not exist; models here: bikes, scooters; add the folder {model}/ with a model.toml"
    )
    with pytest.raises(SpecError, match=message):
        here.spec(model)


def test_without_any_model_the_message_says_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="models here: none; add the folder bikes/"):
        Settings(models=tmp_path).spec("bikes")


def test_a_spec_in_the_folder_of_another_model_is_refused(here: Settings) -> None:
    (here.models / "bikes" / "model.toml").write_text(as_toml("scooters"))
    with pytest.raises(SpecError, match=r"name is 'scooters', the folder is 'bikes'; they must be equal"):
        here.spec("bikes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "bikes/model.toml: not valid TOML: .*; correct the file"),
        (b"kind = 'ranking'", "bikes/model.toml: kind is 'ranking'; input should be 'regression'"),
        pytest.param(
            'name = "Łódź"'.encode("latin2"),
            "bikes/model.toml: ",
        ),
    ],
)
def test_a_spec_that_cannot_be_read_is_refused_by_its_file(here: Settings, content: bytes, message: str) -> None:
    (here.models / "bikes" / "model.toml").write_bytes(content)
    with pytest.raises(SpecError, match=message):
        here.spec("bikes")


def test_artifacts_lie_at_home_unless_a_tracking_server_keeps_them(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).artifacts == tmp_path / "mlartifacts"
    assert Settings(home=tmp_path, mlflow_uri="sqlite:////elsewhere/mlflow.db").artifacts == tmp_path / "mlartifacts"
    assert Settings(home=tmp_path, mlflow_uri="http://mlflow:5000").artifacts is None
