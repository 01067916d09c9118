"""Killing the monitor at any step and running it again: the same decisions, at most one event, every decision said."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from everloop.adapters.decisions import DecisionStore
from everloop.adapters.registry import CHAMPION, Registry
from everloop.domain.decision import RetrainingDecision
from tests.end_to_end.conftest import MODEL, Loop
from tests.end_to_end.test_parts_die import wait_until

KILLED = -signal.SIGKILL
WATCHED = "killed-demand"  # a model of its own: nothing here may start a retraining of the shared one
ROWS, WINDOWS = 100, 4
STORE = "everloop.adapters.decisions:DecisionStore"
BEFORE_IT_IS_STORED = (
    "before:flows.monitor:collect",
    "after:everloop.adapters.profile_store:ProfileStore.put_window",
    f"before:{STORE}.store",
)
AFTER_IT_IS_SAID = ("before:tasks.decide:log_window", f"before:{STORE}.mark_published")


@pytest.fixture
def watched(loop: Loop, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The environment of a home, by name, with the same captured windows: the second and later ones are degraded."""
    registry = Registry(loop.settings.mlflow)
    if registry.at_alias(WATCHED, CHAMPION) is None:
        registry.client.copy_model_version(f"models:/{MODEL}/1", WATCHED)
        registry.set_alias(registry.version(WATCHED, "1"), CHAMPION)
    text = (loop.settings.models / MODEL / "model.toml").read_text()
    path = tmp_path / "models" / WATCHED / "model.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace(f'name = "{MODEL}"', f'name = "{WATCHED}"'))

    now = datetime.now(UTC).replace(tzinfo=None)

    def home(name: str) -> dict[str, str]:
        _capture(loop, tmp_path / name, now)
        return {
            "EVERLOOP_HOME": str(tmp_path / name),
            "EVERLOOP_MODELS": str(tmp_path / "models"),
            "EVERLOOP_MLFLOW_URI": loop.settings.mlflow,
            "EVERLOOP_DATABASE_URL": f"sqlite:///{tmp_path / name / 'everloop.db'}",
            "EVERLOOP_CAPTURE": str(tmp_path / name / "inference"),
            "EVERLOOP_SWEEP_SECONDS": "100000",
        }

    return home


@pytest.mark.timeout(600)
def test_a_monitor_that_is_killed_at_any_step_decides_the_same_and_says_it_at_most_once(
    loop: Loop, watched: Callable[[str], dict[str, str]]
) -> None:
    before, after = watched("before"), watched("after")
    _kill_at(loop, before, *BEFORE_IT_IS_STORED, "before:tasks.decide:emit_decision", *AFTER_IT_IS_SAID)
    assert _events(loop) == 0, "killed before it was said; the sweep starts the retraining"
    _kill_at(loop, after, "after:tasks.decide:emit_decision")
    assert _events(loop) <= 1, "killed while it was on its way"

    undisturbed = watched("undisturbed")
    assert _run(loop, "never", undisturbed) == 0
    wait_until(lambda: _events(loop) == 1)
    expected = _decisions(undisturbed)
    assert [decision.action for decision in expected].count("retrain") == 1
    assert len(expected) == WINDOWS
    saw = [decision.window.id for decision in expected if decision.dependencies or decision.usage]
    assert saw == [max(decision.window.id for decision in expected)], "what surrounds the model now is no window's past"
    for home in (before, after, undisturbed):
        found = _decisions(home)
        assert [_told(decision) for decision in found] == [_told(decision) for decision in expected]
        assert all(decision.published for decision in found)
        assert len(list(Path(home["EVERLOOP_HOME"]).glob(f"reports/{WATCHED}/*.html"))) == WINDOWS
    assert _events(loop) == 1, "the id of an event is made of model and window"


def _kill_at(loop: Loop, home: dict[str, str], *steps: str) -> None:
    """One monitor after another dies, each a step further; the last one lives."""
    for step in steps:
        assert _run(loop, step, home) == KILLED, step
    assert _run(loop, "never", home) == 0


def _run(loop: Loop, step: str, environment: dict[str, str]) -> int:
    done = loop.run("-m", "tests.end_to_end.killed", step, "monitor", f"model={WATCHED}", check=False, **environment)
    assert done.returncode in (0, KILLED), done.stdout[-2000:] + done.stderr[-3000:]
    return done.returncode


def _decisions(environment: dict[str, str]) -> list[RetrainingDecision]:
    return list(DecisionStore(environment["EVERLOOP_DATABASE_URL"], lease=timedelta(seconds=6)).list(WATCHED))


def _told(decision: RetrainingDecision) -> dict[str, Any]:
    """What must be the same: everything but the state of the surroundings, which is that of the moment."""
    return decision.model_dump(mode="json", exclude={"usage", "dependencies", "published"})


def _events(loop: Loop) -> int:
    """How many events that start a retraining of the watched model the server has received."""
    wanted = {"event": {"name": ["everloop.model.degraded"]}, "resource": {"id": [f"everloop.model.{WATCHED}"]}}
    body = {"filter": {**wanted, "occurred": {"since": "2020-01-01T00:00:00Z"}}, "limit": 50}
    answer = httpx.post(f"{loop.settings.prefect_api}/events/filter", json=body, trust_env=False).raise_for_status()
    return int(answer.json()["total"])


def _capture(loop: Loop, home: Path, now: datetime) -> None:
    """The log of a service whose predictions were right in the first window and far off in the others."""
    spec = loop.settings.spec(MODEL)
    rows = loop.future.iloc[: ROWS * WINDOWS]
    captured, labels = [], []
    for position, row in enumerate(rows.to_dict("records")):
        at = (now + timedelta(microseconds=position)).isoformat(timespec="microseconds")
        asked = {name: row[name] for name in (spec.key, *spec.features.names)}
        answer = {
            "predictions": [row["cnt"] * (1 if position < ROWS else 4)],
            "prediction_ids": [f"p{position:06d}-000000"],
            "model_version": "1",
        }
        line = {"at": at, "request_id": f"p{position:06d}", "ms": 1.0}
        captured.append(
            {**line, "request": {"rows": [{**asked, "datetime": row["datetime"].isoformat()}]}, "answer": answer}
        )
        label = {"key": row["instant"], "label": row["cnt"], "observed_at": row["datetime"].isoformat()}
        labels.append({**line, "request": {"labels": [label]}, "answer": None})
    for folder, lines in (("inference", captured), ("labels", labels)):
        path = home / folder / WATCHED / f"date={now:%Y-%m-%d}" / "host-00001.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
