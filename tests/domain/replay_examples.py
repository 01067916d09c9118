"""What the replay tests start from: a history whose concept changes once, replayed without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from everloop.domain.configuration import Configuration
from everloop.domain.frames import derive_schema
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_fits import FitRequest, Fitted, Subject, fit_request
from everloop.domain.replay_policy import PolicyRun, replay_policy
from everloop.domain.replay_timeline import ReplayPlan, Timeline, lay_out
from everloop.domain.replay_training import Trainer
from everloop.domain.spec import ModelSpec
from tests.domain.examples import a_spec

CHANGE = 600
EAGER = MonitorSpec(persistence="1 of 1", min_rows=20, on_growth=0.0, cooldown="1m", max_rejections=100)
NOTHING = MonitorSpec(on_drift="ignore", on_degradation="ignore", on_growth=0.0)


def a_changing_history(rows: int = 1000, *, change: int = CHANGE, seed: int = 0) -> pd.DataFrame:
    """Hourly rows in which y = 2x before row `change` and y = 12 - 2x from it on, with a little noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 5, rows)
    y = np.where(np.arange(rows) < change, 2 * x, 12 - 2 * x) + rng.normal(0, 0.1, rows)
    return pd.DataFrame({"x": x, "c": "a", "y": y, "t": pd.date_range("2024-01-01", periods=rows, freq="h")})


def a_replay_spec(**tables: Any) -> ModelSpec:
    """A spec whose history the search chooses and whose holdout is 40 rows."""
    defaults: dict[str, Any] = {
        "data": {"source": "toy.csv", "history": ["all", "10%"]},
        "gates": {"metric": "mae", "worst_allowed": 100.0, "holdout_rows": 40, "min_holdout_rows": 40},
    }
    return a_spec(**(defaults | tables))


class Fitter:
    """Fits what is asked for and remembers the requests."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.requests = subject, list[FitRequest]()

    def __call__(self, requests: Sequence[FitRequest]) -> list[Fitted]:
        self.requests += requests
        return [fit_request(request, self.subject) for request in requests]


def a_stage(rows: pd.DataFrame, spec: ModelSpec, **plan: Any) -> tuple[Timeline, Trainer, Fitter]:
    """The timeline of `rows` in 20 windows, unless `plan` says otherwise, and who trains on it."""
    subject = Subject(rows, spec, derive_schema(rows, spec), Configuration(estimator="sklearn.linear_model.Ridge"))
    fitter = Fitter(subject)
    return lay_out(rows, spec.time, ReplayPlan(**{"windows": 20, **plan})), Trainer(subject, fitter), fitter


def a_run(rows: pd.DataFrame, spec: ModelSpec, policy: MonitorSpec, **plan: Any) -> tuple[Timeline, PolicyRun, Fitter]:
    """What `policy` does on `rows`."""
    timeline, trainer, fitter = a_stage(rows, spec, **plan)
    return timeline, replay_policy(timeline, trainer, trainer.first(timeline.initial), policy), fitter
