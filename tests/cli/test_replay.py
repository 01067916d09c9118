"""Tests of cli/replay.py and cli/replay_report.py: a replay from the source to the printed JSON, and its files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cli.replay import history_of, plan_of, policies_of, replay_model, run_replay
from cli.replay_report import verdict, write_replay
from cli.tune import run_tuning
from everloop.adapters.fit_cache import FitCache
from everloop.domain.errors import NotEnoughData, SpecError
from everloop.domain.replay import ReplayReport
from everloop.domain.replay_fits import FitRequest, Fitted
from everloop.settings import settings
from tasks.wiring import registry
from tests.domain.replay_examples import CHANGE, a_changing_history, a_replay_spec

MODEL = """
name = "toy"
kind = "regression"
target = "y"
{time}
[data]
source = "toy.csv"
history = ["all", "10%"]
include_served = {include}
[features]
numeric = ["x"]
categorical = ["c"]
[search]
trials = 2
[[search.candidates]]
estimator = "sklearn.linear_model.Ridge"
[gates]
metric = "mae"
worst_allowed = 100.0
holdout_rows = 40
min_holdout_rows = 40
[monitor]
min_rows = 20
persistence = "1 of 1"
cooldown = "1m"
max_rejections = 100
"""
KEYS = {
    "metric_never",
    "metric_always_all",
    "metric_always_recent",
    "metric_policy",
    "retrains_policy",
    "retrains_always",
    "gain_share",
    "retrain_share",
    "windows",
}


@pytest.fixture(name="home", autouse=True)
def a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project with the model `toy`, whose concept changes at row CHANGE, and `timeless`, the same without times."""
    for name, time in (("toy", 'time = "t"'), ("timeless", "")):
        text = MODEL.format(time=time, include=str(bool(time)).lower()).replace('"toy"', f'"{name}"', 1)
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.toml").write_text(text)
    a_changing_history().to_csv(tmp_path / "toy.csv", index=False)
    before = dict(os.environ)
    for variable, value in (("HOME", tmp_path / "home"), ("MODELS", tmp_path / "models"), ("DATA", tmp_path)):
        monkeypatch.setenv(f"EVERLOOP_{variable}", str(value))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(name="fitted")
def counted_fits(monkeypatch: pytest.MonkeyPatch) -> list[FitRequest]:
    """Every fit that is really made from now on."""
    made: list[FitRequest] = []
    keep = FitCache._keep

    def counting(cache: FitCache, fit: Fitted) -> Fitted:
        made.append(fit.request)
        return keep(cache, fit)

    monkeypatch.setattr(FitCache, "_keep", counting)
    return made


def replay(model: str = "toy", **choices: Any) -> ReplayReport:
    return run_replay(model, plan_of(windows=20), **choices)


def test_prints_one_json_object_with_the_promised_keys(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay_model("toy", plan_of(windows=20), folder=None, log=False, as_json=True)
    out = capsys.readouterr().out
    found = json.loads(out)
    assert set(found) >= KEYS
    assert len(found["windows"]) == 20
    assert {"index", "start", "end", "rows", "metric_policy", "action", "reason_codes"} <= set(found["windows"][0])
    assert json.loads((home / "replay" / "toy" / "report" / "replay.json").read_text()) == found


def test_metrics_are_means_over_the_rows_of_all_windows() -> None:
    report = replay()
    rows = sum(window.rows for window in report.windows)
    for key in ("metric_never", "metric_always_all", "metric_always_recent", "metric_policy"):
        mean = sum(getattr(window, key) * window.rows for window in report.windows) / rows
        assert getattr(report, key) == pytest.approx(mean)


def test_shares_are_of_the_better_way_to_retrain_every_window() -> None:
    report = replay()
    best = min(report.metric_always_all, report.metric_always_recent)
    assert report.retrains_always == 19
    assert report.retrain_share == report.retrains_policy / 19
    gained = (report.metric_never - report.metric_policy) / (report.metric_never - best)
    assert report.gain_share == pytest.approx(gained)
    assert 0.3 < gained < 1.3


def test_a_second_run_fits_nothing_and_finds_the_same(fitted: list[FitRequest]) -> None:
    first = replay()
    made = len(fitted)
    assert made == len(set(fitted)) > 19
    assert replay() == first
    assert len(fitted) == made


def test_another_policy_uses_the_fits_of_the_first(fitted: list[FitRequest]) -> None:
    replay(policies=["max_loss_increase=0.5"])
    made = len(fitted)
    replay(policies=["max_loss_increase=0.6", "default"])
    assert len(fitted) - made < made / 4


def test_a_killed_run_continues_where_it_was(fitted: list[FitRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    keep = FitCache._keep

    def killed_at_the_tenth(cache: FitCache, fit: Fitted) -> Fitted:
        if len(fitted) == 10:
            raise KeyboardInterrupt
        return keep(cache, fit)

    with monkeypatch.context() as patched:
        patched.setattr(FitCache, "_keep", killed_at_the_tenth)
        with pytest.raises(KeyboardInterrupt):
            replay()
    assert len(fitted) == 10
    replay()
    assert len(fitted) == len(set(fitted))


def test_policies_stand_side_by_side_and_the_first_leads() -> None:
    report = replay(policies=["on_degradation=ignore,on_growth=0", "spec"])
    never, spec = report.policies
    assert (report.policy, report.metric_policy, report.retrains_policy) == (never.name, never.metric, 0)
    assert never.metric == report.metric_never
    assert spec.retrains > 0
    assert spec.metric < never.metric
    assert set(report.windows[0].policies) == {never.name, "spec"}


def test_works_without_a_time_column() -> None:
    report = replay("timeless")
    assert report.retrains_policy > 0
    assert report.windows[1].start == "2000-01-02T00:00:00"


def test_change_points_count_false_and_missed_alarms() -> None:
    alarms = replay(changes=[f"row:{CHANGE}"]).alarms
    assert alarms is not None
    assert alarms.missed == 0
    assert alarms.waited[0] in (0, 1)
    ignoring = replay(changes=["2"], policies=["on_degradation=ignore,on_drift=ignore"]).alarms
    assert ignoring is not None
    assert (ignoring.alarms, ignoring.missed) == (0, 1)


def test_a_part_of_the_time_is_replayed() -> None:
    spec = settings().spec("toy")
    rows = history_of(spec, served=False, begin="2024-01-02", end="2024-01-05")
    assert (len(rows), rows["t"].iloc[0].isoformat()) == (72, "2024-01-02T00:00:00")


def test_writes_one_page_that_needs_nothing_else(tmp_path: Path) -> None:
    report = replay()
    files = write_replay(report, tmp_path / "out")
    assert [file.name for file in files] == ["replay.json", "replay.png", "replay.html"]
    page = files[2].read_text()
    assert verdict(report) in page.replace("&#39;", "'")
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_leaves_a_run_in_mlflow_with_its_windows_as_steps(home: Path) -> None:
    replay_model("toy", plan_of(windows=20), folder=None, log=True, as_json=False)
    from mlflow import MlflowClient

    client = MlflowClient(settings().mlflow, settings().mlflow)
    experiment = client.get_experiment_by_name("toy.replay")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "mae.never")
    assert [point.step for point in sorted(history, key=lambda point: point.step)] == list(range(20))
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {
        "replay.json",
        "replay.png",
        "replay.html",
    }


def test_retraining_that_gains_nothing_is_said() -> None:
    report = replay().model_copy(update={"gain_share": None})
    assert verdict(report).startswith("Retraining would have gained nothing here")


def test_from_and_to_without_a_time_column_are_refused() -> None:
    with pytest.raises(
        SpecError, match="--from and --to are event times and the spec has no time column; leave them out"
    ):
        replay("timeless", begin="2024-01-02")


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(NotEnoughData, match="toy: no row lies from 2031-01-01 to None; nothing can be replayed"):
        replay(begin="2031-01-01")


def test_served_rows_without_a_label_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="toy: no captured prediction has a label yet"):
        replay(served=True)


def test_a_policy_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(SpecError, match=r"policy 'strict\.toml': there is no such file"):
        policies_of(["strict.toml"], a_replay_spec())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 1.0}, "--initial: Input should be less than 1"),
        ({"label_delay": "soon"}, "--label-delay: .*'soon' is not a duration"),
        ({"window_rows": 10, "window_span": "1d"}, "both were given; leave one out"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan_of(**options)


def test_tuning_refuses_a_policy_that_retrains_on_drift(home: Path) -> None:
    path = home.parent / "models" / "toy" / "model.toml"
    path.write_text(path.read_text() + 'on_drift = "retrain"\n')
    with pytest.raises(
        SpecError, match=r"toy: monitor\.on_drift is 'retrain' and tuning looks at the loss and at growth only"
    ):
        run_tuning("toy", plan_of(windows=10))


def test_a_policy_is_logged_whatever_its_name(home: Path) -> None:
    """MLflow refuses '=' and ',' in the names of metrics."""
    name = "max_loss_increase=0.2,persistence=1 of 1"
    registry.cache_clear()
    replay_model("toy", plan_of(windows=6), folder=home / "r", log=True, as_json=True, policies=[name])
    (run,) = registry().client.search_runs([registry().experiment("toy.replay", artifacts=None)])
    registry.cache_clear()
    assert run.data.metrics["retrains.max_loss_increase_0.2_persistence_1 of 1"] >= 0
