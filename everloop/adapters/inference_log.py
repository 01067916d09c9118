"""The inference log: captured predictions and labels, append-only JSON lines, one file a writer and day.

`inference/<model>/date=YYYY-MM-DD/<writer>.jsonl` and `labels/<model>/date=YYYY-MM-DD/<writer>.jsonl`.
A line is complete or it does not count: the torn last line of a killed writer is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from everloop.domain.spec import ModelSpec

log = logging.getLogger("everloop.inference_log")

CAPTURED_COLUMNS = ["prediction_id", "key", "event_time", "served_at", "model_version", "prediction", "probabilities"]


def read_captured(folder: Path, spec: ModelSpec, *, until: pd.Timestamp | None = None) -> pd.DataFrame:
    """Every captured prediction of the model in the order of capture, features as columns `features.<name>`.

    With `until`, only rows whose event time is at or before it. Times are naive UTC.
    """
    lines = sorted(_read_lines(folder / spec.name), key=lambda line: (line["served_at"], line["prediction_id"]))
    frame = _frame(lines, [*CAPTURED_COLUMNS, "features"])
    features = pd.DataFrame.from_records(
        frame.pop("features").tolist(), columns=list(spec.features.names), index=frame.index
    )
    frame = pd.concat([frame, features.add_prefix("features.")], axis=1)
    for name in ("event_time", "served_at"):
        frame[name] = _times(frame[name])
    if until is not None:
        frame = frame[frame["event_time"] <= until]
    return frame.reset_index(drop=True)


def read_labels(folder: Path, spec: ModelSpec, *, until: pd.Timestamp | None = None) -> pd.DataFrame:
    """The newest label of each prediction id or key: columns prediction_id, key, label, observed_at (naive UTC).

    With `until`, only labels observed at or before it.
    """
    frame = _frame(list(_read_lines(folder / spec.name)), ["prediction_id", "key", "label", "observed_at"])
    frame["observed_at"] = _times(frame["observed_at"])
    if until is not None:
        frame = frame[frame["observed_at"] <= until]
    newest = frame.sort_values("observed_at", kind="stable").drop_duplicates(["prediction_id", "key"], keep="last")
    return newest.reset_index(drop=True)


def join_labels(captured: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """`captured` with a column `label`, null where none has arrived; a label by prediction id wins over one by key."""
    by_id = labels[labels["prediction_id"].notna()].set_index("prediction_id")["label"]
    by_key = labels[labels["prediction_id"].isna() & labels["key"].notna()].set_index("key")["label"]
    found = captured["prediction_id"].map(by_id)
    return captured.assign(label=found.where(found.notna(), captured["key"].map(by_key)))


def served_examples(captured: pd.DataFrame, labels: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    """Labelled served rows with the columns of the source: a prediction asked for twice counts once, the newest."""
    joined = join_labels(captured, labels)
    joined = joined[joined["label"].notna()]
    if spec.key is not None:
        joined = joined[joined["key"].isna() | ~joined["key"].duplicated(keep="last")]
    columns = {name: joined[f"features.{name}"] for name in spec.features.names}
    columns[spec.target] = joined["label"].infer_objects()
    if spec.time is not None:
        columns[spec.time] = joined["event_time"]
    if spec.key is not None:
        columns[spec.key] = joined["key"].infer_objects()
    return pd.DataFrame(columns)[list(spec.columns)].reset_index(drop=True)


def _read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    torn = 0
    for path in sorted(folder.glob("date=*/*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            if not line:
                continue
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                torn += 1
    if torn:
        log.warning("%s: dropped %d torn lines that a killed writer left", folder, torn)


def _frame(lines: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """`lines` as a frame; keys stay what they are, a whole number beside nulls must not become a float."""
    keys = pd.Series([line["key"] for line in lines], dtype=object)
    return pd.DataFrame.from_records(lines, columns=columns).assign(key=keys)


def _times(column: pd.Series) -> pd.Series:
    return pd.to_datetime(column, utc=True, format="ISO8601").dt.tz_localize(None).astype("datetime64[us]")
