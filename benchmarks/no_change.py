"""Streams in which nothing changes: rows of the bike and the bank data, drawn one by one or in stretches of every season.

An autocorrelated window is a moving-block bootstrap (Künsch 1989) within seasons: whole stretches of consecutive rows, the
same number of rows from every season (month of the year for the bikes, tenth of the file for the bank). So the windows
have one common distribution while the rows of a window depend on each other as real rows do. The first third of every
stretch of the data trains the model whose losses and predictions go with the rows; windows never hold those rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from everloop.domain.configuration import Configuration
from everloop.domain.frames import conform
from everloop.domain.metrics import row_losses
from everloop.domain.pipelines import build_pipeline, predict
from everloop.domain.schema import FeatureSchema, RowSchema
from everloop.domain.spec import Kind, MetricName

PROJECT = Path(__file__).resolve().parent.parent
BIKE = PROJECT / "data" / "bike_sharing" / "hour.csv"
BANK = PROJECT / "data" / "bank_marketing" / "bank_additional_full.csv.gz"
NARROW, WIDE = 10, 50
LONGEST_STRETCH = 168  # rows; of the bikes a week
TRAINING_SHARE = 1 / 3


@dataclass(frozen=True)
class Pool:
    """Rows that windows are drawn from, in time order: raw columns, and each row's prediction and loss (rows,).

    `stretches` are (season, start, stop): runs of consecutive rows of one season.
    """

    name: str
    frame: pd.DataFrame
    schema: RowSchema
    metric: MetricName
    predictions: np.ndarray
    losses: np.ndarray
    stretches: tuple[tuple[int, int, int], ...]

    def narrow(self) -> tuple[str, ...]:
        """The ten columns that a narrow window has."""
        return self.schema.names[:NARROW]


def draw_window(pool: Pool, rows: int, rng: np.random.Generator, *, autocorrelated: bool) -> np.ndarray:
    """Positions of one window's rows in the pool, (rows,): independent, or stretches of every season."""
    if not autocorrelated:
        return rng.integers(0, len(pool.frame), rows)
    seasons = sorted({season for season, _, _ in pool.stretches})
    counts = np.full(len(seasons), rows // len(seasons))
    counts[: rows % len(seasons)] += 1
    return np.concatenate([_of_season(pool, season, count, rng) for season, count in zip(seasons, counts, strict=True)])


def _of_season(pool: Pool, season: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """`rows` rows of one season in stretches of equal length, at most LONGEST_STRETCH."""
    stretches = -(-rows // LONGEST_STRETCH)
    lengths = np.full(stretches, rows // stretches)
    lengths[: rows % stretches] += 1
    parts = []
    for length in lengths:
        starts = np.concatenate([np.arange(a, b - length + 1) for s, a, b in pool.stretches if s == season])
        parts.append(rng.choice(starts) + np.arange(length))
    return np.concatenate(parts)


def bike_pool() -> Pool:
    """Hours of 2011 and 2012; seasons are the months of the year, the loss is the absolute error of the demand."""
    raw = pd.read_csv(BIKE)
    numeric, categorical = (
        ["temp", "hum", "windspeed", "hr", "atemp"],
        [
            "weekday",
            "weathersit",
            "workingday",
            "season",
            "mnth",
        ],
    )
    frame = raw[[*numeric, *categorical, "holiday"]].copy()
    for name in ("temp", "hum", "windspeed", "cnt"):
        for lag in (1, 24, 168):
            frame[f"{name}_lag_{lag}"] = raw[name].shift(lag)
        for span in (6, 24, 168):
            frame[f"{name}_mean_{span}"] = raw[name].shift(1).rolling(span).mean()
        frame[f"{name}_change"] = raw[name].shift(1).diff()
        frame[f"{name}_spread"] = raw[name].shift(1).rolling(24).std()
    frame["discomfort"] = raw["temp"] * raw["hum"]
    frame["chill"] = raw["temp"] * raw["windspeed"]
    frame["felt"] = raw["atemp"] - raw["temp"]
    frame["part_of_day"] = raw["hr"] // 6
    frame["windy"] = pd.cut(raw["windspeed"], [-1, 0, 0.2, 0.4, 1], labels=["none", "low", "some", "strong"]).astype(
        str
    )
    frame["humid"] = pd.cut(raw["hum"], 8, labels=False)
    frame["rush"] = raw["hr"].isin([7, 8, 17, 18]).map({True: "yes", False: "no"})
    run = raw["yr"] * 12 + raw["mnth"] - 1
    categories = [*categorical, "holiday", "part_of_day", "windy", "humid", "rush"]
    return _pool("bike", frame, raw["cnt"], run.to_numpy(), run.to_numpy() % 12, categories, "regression", "mae")


def bank_pool() -> Pool:
    """Calls of 2008 to 2010 in order; seasons are the tenths of the file, the loss is the log loss of 'yes'."""
    raw = pd.read_csv(BANK, sep=";").replace("unknown", None)
    raw.columns = [name.replace(".", "_") for name in raw.columns]
    raw["pdays"] = raw["pdays"].where(raw["pdays"] != 999)
    numeric, categorical = (
        ["age", "campaign", "previous", "euribor3m", "cons_conf_idx"],
        [
            "job",
            "marital",
            "education",
            "contact",
            "poutcome",
        ],
    )
    extra = ["default", "housing", "loan", "month", "day_of_week"]
    frame = raw[[*numeric, *categorical, *extra, "pdays", "emp_var_rate", "cons_price_idx", "nr_employed"]].copy()
    answered = (raw["y"] == "yes").astype(float)
    for name, series in (("age", raw["age"]), ("campaign", raw["campaign"]), ("previous", raw["previous"])):
        frame[f"{name}_log"] = np.log1p(series)
        for span in (5, 20, 100):
            frame[f"{name}_mean_{span}"] = series.shift(1).rolling(span).mean()
        for lag in (1, 10):
            frame[f"{name}_lag_{lag}"] = series.shift(lag)
        frame[f"{name}_spread"] = series.shift(1).rolling(50).std()
    for span in (50, 200, 1000):
        frame[f"answered_mean_{span}"] = answered.shift(1).rolling(span).mean()
    for name in ("euribor3m", "cons_price_idx"):
        frame[f"{name}_change"] = raw[name] - raw[name].shift(500)
    frame["age_by_euribor"] = raw["age"] * raw["euribor3m"]
    frame["decade"] = raw["age"] // 10
    frame["confidence_by_price"] = raw["cons_conf_idx"] * raw["cons_price_idx"]
    frame["calls"] = raw["campaign"].clip(upper=6)
    frame["job_marital"] = raw["job"] + " " + raw["marital"]
    tenth = np.arange(len(raw)) * 10 // len(raw)
    categories = [*categorical, *extra, "decade", "calls", "job_marital"]
    return _pool("bank", frame, raw["y"], tenth, tenth, categories, "binary", "log_loss")


POOLS: dict[str, Callable[[], Pool]] = {"bike": bike_pool, "bank": bank_pool}


def _pool(
    name: str,
    frame: pd.DataFrame,
    target: pd.Series,
    run: np.ndarray,
    season: np.ndarray,
    categories: list[str],
    kind: Kind,
    metric: MetricName,
) -> Pool:
    """The rows after the first third of every run, in which the season is constant, with a model fitted on those thirds."""
    frame = frame.iloc[:, :WIDE]
    schema = _schema(frame, categories, target if kind == "binary" else None)
    position = np.arange(len(frame)) - np.array([np.flatnonzero(run == r)[0] for r in range(run.max() + 1)])[run]
    trains = position < TRAINING_SHARE * np.bincount(run)[run]
    estimator = "Regressor" if kind == "regression" else "Classifier"
    configuration = Configuration(
        estimator=f"sklearn.ensemble.HistGradientBoosting{estimator}",
        parameters={"max_iter": 100, "learning_rate": 0.05, "max_leaf_nodes": 15},
    )
    pipeline = build_pipeline(configuration, schema, seed=0).fit(conform(frame[trains], schema), target[trains])
    kept = frame[~trains].reset_index(drop=True)
    said = predict(pipeline, kept, schema)
    losses = row_losses(metric, target[~trains].to_numpy(), said)
    values = said.values if said.probabilities is None else said.probabilities[:, -1]
    bounds = np.flatnonzero(np.diff(run[~trains])) + 1
    edges = [0, *bounds.tolist(), len(kept)]
    stretches = tuple((int(season[~trains][a]), a, b) for a, b in pairwise(edges))
    return Pool(name, kept, schema, metric, values, losses, stretches)


def _schema(frame: pd.DataFrame, categories: list[str], classes: pd.Series | None) -> RowSchema:
    features = []
    for name in frame.columns:
        is_text = name in categories
        kind = "text" if frame[name].dtype == object or str(frame[name].dtype) == "str" else "integer"
        features.append(
            FeatureSchema(
                name=name,
                role="categorical" if is_text else "numeric",
                type=kind if is_text else "number",
                nullable=True,
            )
        )
    known = tuple(sorted(classes.unique())) if classes is not None else ()
    return RowSchema(features=tuple(features), classes=known)
