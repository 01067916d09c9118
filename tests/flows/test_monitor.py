"""The monitor's judgement with real files: a model registered in MLflow, a log of its predictions, and stores on disk.

Steps run as plain functions and events are collected: Prefect's part in it is tested end to end.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest

from everloop.adapters.registry import CHAMPION, Version
from everloop.adapters.usage_log import judged_until
from everloop.domain.decision import RetrainingDecision
from everloop.domain.dependencies import SourceState
from everloop.domain.monitor_spec import RowWindow, SpanWindow
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from flows.monitor import judge
from flows.train import challenge
from tasks.wiring import decisions, registry
from tests.factories import BIKES, as_requests, make_rows

MODEL, HISTORY = "bikes", 2400
SPEC = f"""{BIKES}history = "all"
[features]
numeric = ["temp", "wind"]
categorical = ["season", "city", "holiday"]
ranges.temp = [-30, 50]
[search]
trials = 1
[[search.candidates]]
estimator = "sklearn.ensemble.HistGradientBoostingRegressor"
[gates]
metric = "mae"
worst_allowed = 100.0
[serving]
port = 1
[monitor]
window.span = "6h"
min_rows = 120
persistence = "2 of 3"
slices = ["city"]
time_parts = ["age", "hour"]
max_age = "30d"
on_growth = 0
"""
SERVED, WINDOWS = 200, 10  # rows a window; windows of which there are rows
PACE = timedelta(hours=6) / SERVED
TODAY = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=3)


class Killed(BaseException):
    """The process is gone: nothing catches it."""


@dataclass
class House:
    """A home with a champion, what is served and labelled in it, and the events that came of it."""

    home: Path
    spec: ModelSpec
    champion: Version
    events: list[tuple[str, str]]
    rows: pd.DataFrame

    def serve(self, window: int, *, off: float = 0.0, labels: bool = True, **broken: Any) -> None:
        """`SERVED` rows of one window, answered with their true value and `off`; `broken` are values of columns."""
        rows = self.rows.iloc[window * SERVED : (window + 1) * SERVED].assign(**broken)
        begin, captured = START + timedelta(hours=6 * window), []
        for position, (asked, truth) in enumerate(zip(as_requests(rows, self.spec), rows["cnt"], strict=True)):
            served = begin + PACE * position
            asked["when"] = (served - timedelta(seconds=60 if position else 0)).isoformat()
            name = f"w{window:02}-{position:04}"
            answer = {"predictions": [truth + off], "prediction_ids": [f"{name}-000000"], "model_version": "1"}
            line = {"at": f"{served:%Y-%m-%dT%H:%M:%S.%f}", "request_id": name, "ms": 1.0}
            captured.append({**line, "request": {"rows": [asked]}, "answer": answer})
        self._write("inference", begin, f"w{window:02}", captured)
        if labels:
            self.label(window)

    def label(self, window: int, share: float = 1.0) -> None:
        """The true values of the first `share` of a window's rows."""
        rows = self.rows.iloc[window * SERVED : (window + 1) * SERVED]
        at, lines = START + timedelta(hours=6 * window + 6), []
        for key, truth in zip(rows["id"][: round(share * SERVED)], rows["cnt"], strict=False):
            label = {"key": int(key), "label": truth, "observed_at": at.isoformat()}
            lines.append({"at": at.isoformat(), "request_id": f"l{key}", "ms": 1.0, "request": {"labels": [label]}})
        self._write("labels", at, f"w{window:02}-{share}", [{**line, "answer": None} for line in lines])

    def reshape(self, window: Any) -> None:
        """From now on windows have another shape."""
        self.spec = self.spec.model_copy(update={"monitor": self.spec.monitor.model_copy(update={"window": window})})

    def judge(self) -> list[RetrainingDecision]:
        """What a run of the monitor decides."""
        return judge(self.spec, self.champion, None)

    def stored(self) -> list[RetrainingDecision]:
        """All decisions, oldest window first."""
        return list(decisions().list(MODEL))

    def _write(self, folder: str, day: datetime, name: str, lines: list[dict[str, Any]]) -> None:
        path = self.home / folder / MODEL / f"date={day:%Y-%m-%d}" / f"host-{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, pd.DataFrame]]:
    """A folder with a source and a champion in MLflow that was trained on it, and the rows that come after it."""
    folder = tmp_path_factory.mktemp("trained")
    rows = make_rows(HISTORY + WINDOWS * SERVED)
    first = pd.Timestamp(START) - pd.Timedelta(hours=HISTORY)
    rows["when"] = first + pd.to_timedelta(range(len(rows)), unit="h")
    rows.iloc[:HISTORY].to_csv(folder / "rows.csv", index=False)
    (folder / "models" / MODEL).mkdir(parents=True)
    (folder / "models" / MODEL / "model.toml").write_text(SPEC, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        _live_in(patch, folder, folder / "training", [])
        version, _ = challenge(settings().spec(MODEL), "on demand", None)
        assert version.tags["verdict"] == "pass", version.tags["verdict_reasons"]
        registry().set_alias(version, CHAMPION)
    yield folder, rows.iloc[HISTORY:].reset_index(drop=True)
    _forget()


@pytest.fixture
def build(
    trained: tuple[Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], House]:
    """Houses by name, each with stores of its own; the newest is the one that the monitor lives in."""
    return lambda name: _move_in(monkeypatch, trained, tmp_path / name)


def _move_in(patch: pytest.MonkeyPatch, trained: tuple[Path, pd.DataFrame], home: Path) -> House:
    events: list[tuple[str, str]] = []
    folder, rows = trained
    _live_in(patch, folder, home, events)
    champion = registry().champion(MODEL)
    assert champion is not None
    return House(home, settings().spec(MODEL), champion, events, rows)


def _live_in(patch: pytest.MonkeyPatch, folder: Path, home: Path, events: list[tuple[str, str]]) -> None:
    """Afterwards every step has this home, and emits `events` as pairs of an id and a reason."""
    home.mkdir()
    for name, value in (
        ("HOME", home),
        ("MODELS", folder / "models"),
        ("DATA", folder),
        ("MLFLOW_URI", f"sqlite:///{folder / 'mlflow.db'}"),
    ):
        patch.setenv(f"EVERLOOP_{name}", str(value))
    _forget()

    def emit(event: str, id: UUID, payload: dict[str, Any], **_: Any) -> None:
        if str(id) not in [known for known, _ in events]:  # the server keeps an event that comes twice once
            events.append((str(id), f"{event.rpartition('.')[2]}: {payload['reason']}"))

    patch.setattr("prefect.events.emit_event", emit)
    patch.setattr("tasks.step.Step.__call__", lambda step, *given, **named: step.fn(*given, **named))
    patch.setattr("flows.train.in_background", lambda *_: None)


def _forget() -> None:
    """Afterwards settings and stores are those of the environment."""
    for of_process in (settings, registry, decisions):
        of_process.cache_clear()


def test_a_calm_window_is_looked_at_from_every_side(build: Callable[[str], House]) -> None:
    house = build("calm")
    for window in range(3):
        house.serve(window)
    made = house.judge()
    assert [(decision.action, decision.performance.verdict) for decision in made] == [("none", "ok")] * 3
    newest = made[-1]
    assert newest.quality is not None
    assert (newest.quality.verdict, newest.drift.calibrated) == ("ok", True)
    assert {test.column for test in newest.drift.tests} >= {"temp", "city", "time.hour", "prediction"}
    assert {found.name for found in newest.slices} == {"city=Porto", "city=Łódź", "city=<missing>"}
    assert all(found.performance.verdict != "degraded" and found.rows > 20 for found in newest.slices)
    assert newest.dependencies is not None
    assert newest.dependencies.verdict == "ok"
    assert newest.usage is not None
    assert newest.usage.hours >= 1
    assert newest.age_seconds == 60
    assert made[0].dependencies is made[0].usage is None, "they are of this moment, not of a window's past"
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    assert judged_until(settings().usage, MODEL) == hour
    assert all(page.stat().st_size > 10_000 for page in [*house.home.glob("reports/bikes/*.html")])
    assert len([*house.home.glob("reports/bikes/*.html")]) == 3


def test_broken_rows_alert_and_hold_a_retraining_back(build: Callable[[str], House]) -> None:
    house = build("broken")
    house.serve(0)
    for window in (1, 2):
        house.serve(window, off=80.0, temp=None)
    *_, last = house.judge()
    assert last.action == "alert"
    assert {"data_quality", "degradation", "blocked"} <= set(last.asks)
    told = next(reason for _, reason in house.events if "temp" in reason)
    assert "all 200 values are null or unreadable, 0.0% in the training data" in told


def test_labels_of_a_window_that_is_not_judged_again_count_as_growth(build: Callable[[str], House]) -> None:
    house = build("grown")
    for window in (0, 1):
        house.serve(window, off=80.0, labels=False)
        house.label(window, share=0.85)
    assert [decision.action for decision in house.judge()] == ["none", "retrain"]
    house.label(1)
    house.serve(2, labels=False)
    *_, newest = house.judge()
    assert newest.growth is not None
    assert newest.growth.labelled_rows == HISTORY + round(0.85 * SERVED) + SERVED


def test_a_client_that_sends_rows_again_is_told(build: Callable[[str], House]) -> None:
    house = build("again")
    house.serve(0, id=HISTORY + 1)
    (made,) = house.judge()
    assert made.quality is not None
    assert [(finding.column, finding.rule) for finding in made.quality.errors] == [("id", "is unique")]
    assert "199 of 200 rows (99.5%) repeat a key of the same window" in made.reason


def test_features_that_differ_from_the_sources_are_found_though_the_source_does_not_know_the_newest_rows(
    build: Callable[[str], House],
) -> None:
    house = build("skewed")
    house.serve(0, id=range(1, SERVED + 1), labels=False)  # other values than the source has for these keys
    for window in (1, 2, 3):
        house.serve(window)
    newest = house.judge()[-1]
    assert newest.dependencies is not None
    skewed = {found.column: found.share for found in newest.dependencies.skew}
    assert skewed["temp"] > 0.9
    assert "dependencies" in newest.asks


def test_labels_that_come_in_another_order_find_the_same_degradation(build: Callable[[str], House]) -> None:
    house = build("unordered")
    house.serve(0)
    for window in (1, 2):
        house.serve(window, off=80.0, labels=False)
    assert [decision.action for decision in house.judge()] == ["none"] * 3
    house.label(2)
    assert [decision.reason_codes for decision in house.judge()] == [("degradation_not_persistent",)]
    house.label(1)
    assert [(decision.window.id[9:], decision.action) for decision in house.judge()] == [
        ("060000-6h", "none"),
        ("120000-6h", "retrain"),
    ]


def test_a_window_whose_rows_come_after_a_later_one_was_decided_is_a_witness_too(build: Callable[[str], House]) -> None:
    house = build("late")
    house.serve(0)
    house.serve(2, off=80.0)
    assert [decision.action for decision in house.judge()] == ["none", "none"]
    house.serve(1, off=80.0)
    assert [decision.action for decision in house.judge()] == ["none", "retrain"]
    assert house.judge() == []


def test_a_newest_window_that_is_judged_again_for_an_earlier_one_says_what_surrounds_it_and_nothing_else_does(
    build: Callable[[str], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build("again once")
    house.serve(0)
    house.serve(1, off=80.0, labels=False)
    house.serve(2, off=80.0)
    house.judge()
    monkeypatch.setattr(
        "tasks.observe.probe_source", lambda *_, **__: SourceState(reachable=False, reason="it is gone")
    )
    house.label(1)
    assert [decision.window.id[9:] for decision in house.judge()] == ["060000-6h", "120000-6h"]
    assert len([reason for _, reason in house.events if "gone" in reason]) == 1


@pytest.mark.parametrize("window", [SpanWindow(span="12h"), SpanWindow(span="3h"), RowWindow(rows=90)])
def test_windows_of_another_shape_are_judged_once(build: Callable[[str], House], window: Any) -> None:
    house = build("reshaped")
    for at in range(4):
        house.serve(at, off=80.0 * (at % 2), labels=False)
    house.judge()
    house.reshape(window)
    assert house.judge() != []
    assert house.judge() == []


def test_what_surrounds_the_model_is_told_though_the_newest_window_has_fired_and_was_not_said(
    build: Callable[[str], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build("fired")
    for window in (0, 1, 2):
        house.serve(window, off=80.0)
    with monkeypatch.context() as patch:
        _die(patch, "before everloop.adapters.decisions.DecisionStore.mark_published", 0)
        with pytest.raises(Killed):
            house.judge()
    gone = SourceState(reachable=False, reason="it is gone")
    monkeypatch.setattr("tasks.observe.probe_source", lambda *_, **__: gone)
    house.judge()
    assert len([reason for _, reason in house.events if "gone" in reason]) == 1


SHAPES = {"span": SpanWindow(span="6h"), "rows": RowWindow(rows=SERVED)}


@pytest.fixture(scope="module", params=SHAPES)
def undisturbed(
    request: pytest.FixtureRequest, trained: tuple[Path, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> Told:
    """The story of a monitor that never dies, with windows of one shape."""
    with pytest.MonkeyPatch.context() as patch:
        house = _move_in(patch, trained, tmp_path_factory.mktemp("undisturbed") / "home")
        house.reshape(SHAPES[request.param])
        return _story(house, House.judge)


@pytest.mark.parametrize(
    "step",
    [
        "before flows.monitor.collect",
        "before flows.monitor.examine",
        "after everloop.adapters.decisions.DecisionStore.store",
        "before tasks.decide.emit_decision",
        "before tasks.decide.emit_alerts",
        "after tasks.decide.emit_alerts",
        "before tasks.decide.log_window",
        "after everloop.adapters.decisions.DecisionStore.mark_published",
        "before flows.monitor.settle_usage",
    ],
)
def test_a_monitor_that_dies_at_any_step_of_any_run_decides_and_tells_the_same(
    undisturbed: Told, build: Callable[[str], House], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Alerts, and labels in an unlucky order; a retraining that was stored and not said is started by the sweep."""

    def judge_and_die(house: House) -> None:
        for skipped in range(20):
            with monkeypatch.context() as patch:
                _die(patch, step, skipped)
                try:
                    house.judge()
                except Killed:
                    continue
                return
        raise AssertionError("it never came through")

    house = build("killed")
    house.reshape(undisturbed.window)
    found = _story(house, judge_and_die)
    assert found.decisions == undisturbed.decisions
    assert found.alerts == undisturbed.alerts
    assert found.retrainings in ([], undisturbed.retrainings)


@dataclass
class Told:
    """What is left of a story: decisions without what surrounded the model, and the reasons of events."""

    window: Any
    decisions: list[dict[str, Any]]
    alerts: list[str]
    retrainings: list[str]


def _story(house: House, run: Callable[[House], object]) -> Told:
    house.serve(0)
    house.serve(1, wind=None, off=80.0, labels=False)
    house.serve(2, off=80.0, labels=False)
    run(house)
    house.label(2)
    run(house)
    house.label(1)  # the window before is degraded as well: now that stands, and the later one is judged again
    run(house)
    stored = [decision.model_dump(mode="json", exclude={"usage", "dependencies"}) for decision in house.stored()]
    assert [decision["action"] for decision in stored] == ["none", "alert", "retrain"]
    reasons = [reason for _, reason in house.events]
    return Told(
        house.spec.monitor.window,
        stored,
        sorted(reason for reason in reasons if reason.startswith("alert")),
        [reason for reason in reasons if reason.startswith("degraded")],
    )


def _die(patch: pytest.MonkeyPatch, step: str, skipped: int) -> None:
    """Afterwards the process dies before or after the step, as it says, the first time but for so many."""
    moment, _, place = step.partition(" ")
    module, _, name = place.rpartition(".")
    owner = pkgutil.resolve_name(module)
    real, left = getattr(owner, name), [skipped]

    def dying(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if moment == "before" and left[0] < 0:
            raise Killed
        result = real(*given, **named)
        if left[0] < 0:
            raise Killed
        return result

    patch.setattr(owner, name, dying)
