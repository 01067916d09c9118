"""What the domain's tests start from: a spec, a small history, summaries of columns, decisions about windows."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from everloop.domain.decision import Past, RetrainingDecision
from everloop.domain.drift import DriftReport, DriftTest
from everloop.domain.evidence import Evidence
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import PerformanceReport
from everloop.domain.retraining import decide
from everloop.domain.spec import ModelSpec
from everloop.domain.summaries import ColumnSummary
from everloop.domain.windows import Window

TIPS = """
name = "tips"
kind = "regression"
target = "tip"
time = "paid_at"
[data]
source = "tips.csv"
history = "all"
[features]
numeric = ["bill", "size"]
categorical = ["day"]
[features.ranges]
bill = [0, 500]
[search]
trials = 3
[[search.candidates]]
estimator = "sklearn.linear_model.Ridge"
alpha = { low = 0.1, high = 10, log = true }
solver = ["auto", "svd"]
fit_intercept = true
[gates]
metric = "mae"
worst_allowed = 2.5
holdout_rows = 200
slices = ["day"]
[monitor]
window = { rows = 500 }
persistence = "2 of 3"
cooldown = "6h"
"""

RIDGE = {"estimator": "sklearn.linear_model.Ridge"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression"}
START = datetime(2024, 1, 1)
PERFORMANCE = {
    "D": ("degraded", "loss_rose", "the loss rose"),
    ".": ("ok", "loss_within_margin", "the loss is fine"),
    "?": ("undetermined", "labels_missing", "labels are missing"),
    "_": ("undetermined", "too_few_rows", "rows are few"),
}
DRIFT = {"S": ("drift", "x drifted"), ".": ("no drift", "no column drifted"), "_": ("undetermined", "rows are few")}


def a_spec(**tables: Any) -> ModelSpec:
    """A spec of `y` from a number `x` and a category `c`, with the given tables laid over its defaults."""
    is_regression = tables.get("kind", "regression") == "regression"
    defaults: dict[str, Any] = {
        "name": "toy",
        "kind": "regression",
        "target": "y",
        "time": "t",
        "data": {"source": "toy.csv", "history": "all"},
        "features": {"numeric": ["x"], "categorical": ["c"]},
        "search": {"trials": 2, "candidates": [RIDGE if is_regression else LOGISTIC]},
        "gates": {
            "metric": "mae" if is_regression else "log_loss",
            "worst_allowed": 10.0,
            "holdout_rows": 20,
            "min_holdout_rows": 20,
        },
        "monitor": {},
    }
    changes = {
        key: {**defaults.get(key, {}), **table} if isinstance(table, dict) else table for key, table in tables.items()
    }
    return ModelSpec.model_validate(defaults | changes)


def a_history(rows: int = 100, *, seed: int = 0) -> pd.DataFrame:
    """`rows` hourly rows in which y = 2x + 5 for category 'b' and y = 2x for 'a', with a little noise; never negative."""
    rng = np.random.default_rng(seed)
    x, c = rng.uniform(1, 5, rows), rng.choice(["a", "b"], rows)
    y = 2 * x + 5 * (c == "b") + rng.normal(0, 0.1, rows)
    return pd.DataFrame({"x": x, "c": c, "y": y, "t": pd.date_range("2024-01-01", periods=rows, freq="h")})


def numbers(values: Any) -> ColumnSummary:
    """The exact summary of `values`, NaN for null; a profile only approximates it."""
    values = np.asarray(values, dtype=float)
    present = np.sort(values[~np.isnan(values)])

    def cdf(points: np.ndarray) -> np.ndarray:
        return np.searchsorted(present, points, side="right") / len(present)

    return ColumnSummary(n=len(values), nulls=len(values) - len(present), cdf=cdf, support=np.unique(present))


def categories(values: Any, nulls: int = 0) -> ColumnSummary:
    counted = Counter(str(value) for value in values)
    return ColumnSummary(n=sum(counted.values()) + nulls, nulls=nulls, categories=counted)


def policy(**changes: Any) -> MonitorSpec:
    return MonitorSpec(**{"persistence": "2 of 3", "cooldown": "3d", **changes})


def a_drift_report(key: str = ".", *, column: str = "x", signal: Any = "distribution") -> DriftReport:
    """The drift report that `key` of DRIFT stands for; where it drifts, it is `column` and `signal` that do."""
    verdict, reason = DRIFT[key]
    test = DriftTest(
        column=column, signal=signal, statistic="a test", p_value=1e-9, effect=0.3, floor=0.05, is_drift=True
    )
    tests = (test,) if verdict == "drift" else ()
    return DriftReport(verdict=verdict, reason=reason, alpha=0.001, rows=200, reference_rows=500, tests=tests)


def a_performance_report(key: str = ".") -> PerformanceReport:
    """The performance report that `key` of PERFORMANCE stands for."""
    verdict, code, reason = PERFORMANCE[key]
    labelled = 0 if code == "labels_missing" else 200
    return PerformanceReport(verdict=verdict, reason_code=code, reason=reason, rows=200, labelled=labelled)


def seen_of(loss: str = ".", drift: str = ".", **more: Any) -> Evidence:
    """What was seen of a window: `loss` is a key of PERFORMANCE, `drift` one of DRIFT, `more` the other fields."""
    drifted, scored = (
        more.pop("drift_report", a_drift_report(drift)),
        more.pop("performance", a_performance_report(loss)),
    )
    return Evidence(drift=drifted, performance=scored, **more)


def a_window(day: float) -> Window:
    """The window of one day."""
    start = START + timedelta(day)
    return Window(id=f"day-{day:02}", start=start.isoformat(), end=(start + timedelta(1)).isoformat(), rows=200)


def take(
    day: float,
    loss: str,
    drift: str = ".",
    *,
    earlier: Any = (),
    version: str = "1",
    seen: dict[str, Any] | None = None,
    fired: Any = None,
    dependencies: Any = None,
    **changes: Any,
) -> RetrainingDecision:
    """The decision about the window of `day`, of which `loss`, `drift` and `seen` say what was seen (see `seen_of`)."""
    past = Past(earlier, [found for found in (earlier if fired is None else fired) if found.is_fired])
    return decide(
        "toy",
        version,
        a_window(day),
        seen_of(loss, drift, **(seen or {})),
        policy=policy(**changes),
        past=past,
        dependencies=dependencies,
    )


def seen(
    losses: str, drifts: str | None = None, *, versions: str | None = None, action: str = "none"
) -> list[RetrainingDecision]:
    """One earlier decision a day that showed these signals, all of them with this action and finished."""
    days = zip(range(len(losses)), losses, drifts or "." * len(losses), versions or "1" * len(losses), strict=True)
    return [
        take(day, loss, drift, version=version).model_copy(update={"action": action, "outcome": "refused"})
        for day, loss, drift, version in days
    ]


def fired(day: int, outcome: str | None = "promoted", version: str = "1", **became: Any) -> RetrainingDecision:
    """An earlier decision to retrain, asked for by a degradation, that saw nothing the windows after it would count."""
    codes = became.get("reason_codes", ("degradation",))
    fired = {"action": "retrain", "reason_codes": codes, "asks": codes, "outcome": outcome, "trained": True}
    return take(day, ".", version=version).model_copy(update={**fired, **became})
