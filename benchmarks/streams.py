"""Histories on which the retraining policy's defaults are chosen: simulated streams, and the keystroke data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from everloop.adapters.sources import read_source
from everloop.domain.spec import ModelSpec
from everloop.settings import PROJECT

ROWS, FEATURES = 15_000, 6
_BOOSTING = {"max_iter": 40, "max_leaf_nodes": 15}
Weights = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def stream_names(draws: int) -> list[tuple[str, int]]:
    """Every stream, by kind and seed, each kind drawn so often; the real data there are only once."""
    return [(kind, seed) for kind in _KINDS for seed in range(draws)] + [("keystroke", 0)]


def stream(kind: str, seed: int) -> tuple[ModelSpec, pd.DataFrame]:
    """Spec and rows, in time order, of one stream; the same in every run."""
    if kind == "keystroke":
        names = [f"attribute_{at}" for at in range(10)]
        spec = _spec("multiclass", "log_loss", "class", names, [], holdout=60)
        return spec, read_source(spec, base=PROJECT)
    return _KINDS[kind](np.random.default_rng([list(_KINDS).index(kind), seed]))


def _stationary(_share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.tile(rng.normal(0, 1, FEATURES), (len(_share), 1))


def _abrupt(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two sudden changes, at 40 % and at 70 % of the rows."""
    return rng.normal(0, 1, (3, FEATURES))[np.searchsorted([0.4, 0.7], share, side="right")]


def _gradual(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One concept turns into another between 30 % and 90 % of the rows."""
    before, after = rng.normal(0, 1, (2, FEATURES))
    turned = np.clip((share - 0.3) / 0.6, 0, 1)[:, None]
    return before * (1 - turned) + after * turned


def _seasonal(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A concept that comes back: four periods over all rows, of which the start has seen most of one."""
    steady, swing = rng.normal(0, 1, (2, FEATURES))
    return steady + swing * np.sin(2 * np.pi * 4 * share)[:, None]


def _signal(weights: Weights, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 6) and a signal (n,) that is not linear in them."""
    x = rng.normal(0, 1, (ROWS, FEATURES))
    shaped = np.column_stack([x[:, :3], np.abs(x[:, 3:5]), x[:, 0] * x[:, 5]])
    return x, (shaped * weights(np.linspace(0, 1, ROWS), rng)).sum(axis=1)


def _regression(weights: Weights, rng: np.random.Generator, dependence: float = 0.0) -> tuple[ModelSpec, pd.DataFrame]:
    """`dependence` is the correlation of a row's noise with that of the row before it."""
    x, signal = _signal(weights, rng)
    noise = rng.normal(0, 1, ROWS)
    for at in range(1, ROWS):
        noise[at] = dependence * noise[at - 1] + np.sqrt(1 - dependence**2) * noise[at]
    names = [f"x{at}" for at in range(FEATURES)]
    return _spec("regression", "mae", "y", names, []), pd.DataFrame(x, columns=names).assign(y=signal + noise)


def _binary(weights: Weights, rng: np.random.Generator) -> tuple[ModelSpec, pd.DataFrame]:
    x, signal = _signal(weights, rng)
    names = [f"x{at}" for at in range(FEATURES)]
    y = (rng.random(ROWS) < 1 / (1 + np.exp(-2 * signal))).astype(int)
    return _spec("binary", "log_loss", "y", names, []), pd.DataFrame(x, columns=names).assign(y=y)


def _volume(rng: np.random.Generator) -> tuple[ModelSpec, pd.DataFrame]:
    """Nothing changes; 150 categories with an effect each need many rows to be learnt."""
    x, signal = _signal(_stationary, rng)
    category = rng.integers(0, 150, ROWS)
    names = [f"x{at}" for at in range(FEATURES)]
    y = 0.3 * signal + 2 * rng.normal(0, 1, 150)[category] + rng.normal(0, 0.5, ROWS)
    rows = pd.DataFrame(x, columns=names).assign(c=[f"c{at}" for at in category], y=y)
    return _spec("regression", "mae", "y", names, ["c"]), rows


def _spec(
    kind: str, metric: str, target: str, numeric: list[str], categorical: list[str], *, holdout: int | None = None
) -> ModelSpec:
    """A spec with everything at its default but what must be said; the source is read for the keystroke data only."""
    estimator = "Regressor" if kind == "regression" else "Classifier"
    gates: dict[str, Any] = {"metric": metric, "worst_allowed": 1000.0}
    if holdout is not None:
        gates |= {"holdout_rows": holdout, "min_holdout_rows": min(holdout, 50)}
    return ModelSpec.model_validate(
        {
            "name": "stream",
            "kind": kind,
            "target": target,
            "data": {"source": "data/keystroke/keystroke.csv", "include_served": False},
            "features": {"numeric": numeric, "categorical": categorical},
            "search": {
                "trials": 2,
                "candidates": [{"estimator": f"sklearn.ensemble.HistGradientBoosting{estimator}", **_BOOSTING}],
            },
            "gates": gates,
        }
    )


_KINDS: dict[str, Callable[[np.random.Generator], tuple[ModelSpec, pd.DataFrame]]] = {
    "stationary, binary": partial(_binary, _stationary),
    "abrupt, regression": partial(_regression, _abrupt),
    "abrupt, binary": partial(_binary, _abrupt),
    "gradual, binary": partial(_binary, _gradual),
    "gradual, dependent rows, regression": partial(_regression, _gradual, dependence=0.9),
    "seasonal, regression": partial(_regression, _seasonal),
    "learnable by volume, regression": _volume,
}
