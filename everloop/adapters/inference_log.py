"""The inference log: captured predictions and labels, append-only.

    inference/<model>/date=YYYY-MM-DD/<segment>.jsonl                    what workers append to, a line a request
    inference/<model>/date=YYYY-MM-DD/version=7/<segment>.parquet        the same, compacted, a row a prediction
    labels/<model>/date=YYYY-MM-DD/<segment>.jsonl and .parquet          the same for labels

A line holds a request and its answer as they went over the wire. It is complete or it does not count: the torn last line of
a killed writer is dropped, and counted. A segment that is compacted is renamed into place before its lines are deleted, so a
row is always in exactly one place for who reads lines first: Parquet files of segments that were read as lines are left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.domain.errors import DataError
from everloop.domain.spec import ModelSpec

log = logging.getLogger("everloop.inference_log")

CAPTURED_COLUMNS = ["prediction_id", "key", "event_time", "served_at", "model_version", "prediction", "probabilities"]
LABEL_COLUMNS = ["prediction_id", "key", "label", "observed_at"]


@dataclass(frozen=True)
class Compaction:
    """What one compaction did; `failed` segments stay lines, and readable."""

    segments: int
    rows: int
    torn: int
    failed: int = 0


def read_captured(
    folder: Path,
    spec: ModelSpec,
    *,
    until: pd.Timestamp | None = None,
    since: str | None = None,
    also: Sequence[str] = (),
) -> pd.DataFrame:
    """Every captured prediction of the model in the order of capture, features as columns `features.<name>`.

    `also` are features that are read beside those of today's spec: a version before may take others. With `until`, only rows
    whose event time is at or before it; with `since`, an ISO time, at least all that were served from then on. Times are
    naive UTC.
    """
    features = dict.fromkeys((*spec.features.names, *also))
    columns = [*CAPTURED_COLUMNS, "latency_ms", *(f"features.{name}" for name in features)]
    frame = _read(folder / spec.name, columns, lambda line: _predictions_of(line, spec), since)
    for name in ("event_time", "served_at"):
        frame[name] = _times(frame[name])
    if until is not None:
        frame = frame[frame["event_time"] <= until]
    return frame.sort_values(["served_at", "prediction_id"], kind="stable").reset_index(drop=True)


def read_labels(
    folder: Path, spec: ModelSpec, *, until: pd.Timestamp | None = None, since: str | None = None
) -> pd.DataFrame:
    """The newest label of each prediction id or key: columns prediction_id, key, label, observed_at (naive UTC).

    With `until`, only labels observed at or before it; with `since`, an ISO time, at least all that were sent from then on.
    """
    frame = _read(folder / spec.name, LABEL_COLUMNS, lambda line: _labels_of(line, spec), since)
    frame["observed_at"] = _times(frame["observed_at"])
    if until is not None:
        frame = frame[frame["observed_at"] <= until]
    newest = frame.sort_values("observed_at", kind="stable").drop_duplicates(["prediction_id", "key"], keep="last")
    return newest.reset_index(drop=True)


def join_labels(captured: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """`captured` with `label` and `observed_at`, null where no label has arrived; one by prediction id wins over one by key."""
    by_id = labels["prediction_id"].notna()
    by_key = ~by_id & labels["key"].notna()
    joined = {}
    for name, values in (("label", labels["label"]), ("observed_at", labels["observed_at"].astype("int64"))):
        found = captured["prediction_id"].map(values[by_id.to_numpy()].set_axis(labels["prediction_id"][by_id]))
        other = captured["key"].map(values[by_key.to_numpy()].set_axis(labels["key"][by_key]))
        joined[name] = found.where(found.notna(), other)
    observed = pd.to_datetime(pd.to_numeric(joined["observed_at"]), unit="us").astype("datetime64[us]")
    return captured.assign(label=joined["label"], observed_at=observed)


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


def compact_captured(folder: Path, spec: ModelSpec) -> Compaction:
    """Afterwards every closed segment of predictions is Parquet, partitioned by date and model version."""
    return _compact(folder / spec.name, lambda line: _predictions_of(line, spec), by_version=True)


def compact_labels(folder: Path, spec: ModelSpec) -> Compaction:
    """Afterwards every closed segment of labels is Parquet, partitioned by date."""
    return _compact(folder / spec.name, lambda line: _labels_of(line, spec), by_version=False)


def expire(folder: Path, *, older_than: datetime, above_bytes: int) -> list[Path]:
    """The compacted files that were deleted: of days before `older_than`, and the oldest until at most `above_bytes` are left."""
    files = sorted(folder.glob("date=*/**/*.parquet"), key=lambda path: (_day(path, folder), path.name))
    size, gone = sum(path.stat().st_size for path in files), []
    for path in files:
        if _day(path, folder) >= f"{older_than:%Y-%m-%d}" and size <= above_bytes:
            break
        size -= path.stat().st_size
        path.unlink()
        gone.append(path)
        for parent in (path.parent, path.parent.parent):
            with contextlib.suppress(OSError):
                parent.rmdir()
    return gone


def _predictions_of(line: dict[str, Any], spec: ModelSpec) -> Iterator[dict[str, Any]]:
    """One row a prediction of a captured request."""
    answer, rows = line["answer"], line["request"]["rows"]
    probabilities = answer.get("probabilities") or [None] * len(rows)
    answers = zip(rows, answer["prediction_ids"], answer["predictions"], probabilities, strict=True)
    for row, identifier, prediction, shares in answers:
        event_time = row.get(spec.time) if spec.time is not None else None
        yield {
            "prediction_id": identifier,
            "key": _whole(row.get(spec.key)) if spec.key is not None else None,
            "event_time": _utc(event_time) if event_time else line["at"],
            "served_at": line["at"],
            "model_version": answer["model_version"],
            "prediction": prediction,
            "probabilities": shares,
            "latency_ms": line["ms"],
            **{
                f"features.{name}": _number(value) if name in spec.features.numeric else value
                for name, value in row.items()
                if name not in (spec.time, spec.key)
            },
        }


def _labels_of(line: dict[str, Any], spec: ModelSpec) -> Iterator[dict[str, Any]]:
    """One row a label of a captured request."""
    for label in line["request"]["labels"]:
        observed = label.get("observed_at")
        yield {
            "prediction_id": label.get("prediction_id"),
            "key": _whole(label.get("key")),
            "label": float(label["label"]) if spec.kind == "regression" else label["label"],
            "observed_at": _utc(observed) if observed else line["at"],
        }


def _read(folder: Path, columns: Sequence[str], rows_of: Any, since: str | None) -> pd.DataFrame:
    """Every row under `folder`: lines first, then the Parquet files of all other segments.

    A segment is filed under the day on which it was opened, so the day before `since` may hold rows of it; a file that was
    compacted before `since` cannot.
    """
    first = f"{pd.Timestamp(since) - pd.Timedelta(days=1):%Y-%m-%d}" if since else ""
    begin = pd.Timestamp(since, tz="UTC").timestamp() if since else 0.0
    frames, read, torn, unreadable = [], set(), 0, 0
    for path in sorted(path for path in folder.glob("date=*/*.jsonl") if _day(path, folder) >= first):
        with contextlib.suppress(FileNotFoundError):  # compacted in this moment: its Parquet file is read below
            rows, lost, strange = _parse(path.read_bytes(), rows_of)
            read.add(path.stem)
            torn, unreadable = torn + lost, unreadable + strange
            frames.append(_frame(rows, columns))
    compacted = [
        path
        for path in sorted(folder.glob("date=*/**/*.parquet"))
        if path.stem not in read and _day(path, folder) >= first and path.stat().st_mtime >= begin
    ]
    frames += [_same_columns(_read_parquet(path), columns) for path in compacted]
    if torn:
        log.warning("%s: dropped %d torn lines that a killed writer left", folder, torn)
    if unreadable:
        log.error("%s: %d lines are not what today's spec expects and are left out", folder, unreadable)
    full = [frame for frame in frames if len(frame)]
    if not full:
        return _frame([], columns)
    frame = pd.concat(full, ignore_index=True) if len(full) > 1 else full[0]
    return frame.assign(key=frame["key"].astype(object))


def _compact(folder: Path, rows_of: Any, *, by_version: bool) -> Compaction:
    segments = rows = torn = failed = 0
    for path in sorted(folder.glob("date=*/*.jsonl")):
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):
                continue  # another compaction was faster, or a worker still appends to it
            if os.fstat(file.fileno()).st_nlink == 0:
                continue
            made, lost, strange = _parse(file.read(), rows_of)
            try:
                if strange:
                    raise ValueError(f"{strange} lines are not what today's spec expects")
                _write(path, made, by_version=by_version)
            except (pa.ArrowException, OSError, ValueError):
                log.exception("%s cannot be compacted and stays as it is", path)
                failed += 1
                continue
            path.unlink()
        segments, rows, torn = segments + 1, rows + len(made), torn + lost
    if torn:
        log.warning("%s: dropped %d torn lines that a killed writer left", folder, torn)
    return Compaction(segments, rows, torn, failed)


def _write(segment: Path, rows: list[dict[str, Any]], *, by_version: bool) -> None:
    versions = sorted({row["model_version"] for row in rows}) if by_version else [None] if rows else []
    for version in versions:
        own = [row for row in rows if version is None or row["model_version"] == version]
        folder = segment.parent if version is None else segment.parent / f"version={version}"
        folder.mkdir(exist_ok=True)
        # always the same name: the segment is locked, and what a killed compaction left is written over
        beside = folder / f".{segment.stem}"
        _frame(own, list(dict.fromkeys(name for row in own for name in row))).to_parquet(beside, index=False)
        beside.chmod(segment.stat().st_mode & 0o777)
        beside.replace(folder / f"{segment.stem}.parquet")


def _parse(data: bytes, rows_of: Any) -> tuple[list[dict[str, Any]], int, int]:
    """The rows, how many lines were torn, and how many are complete and not what the spec of today expects.

    Lines are read by the decoder that had accepted the requests.
    """
    rows, torn, strange = [], 0, 0
    for line in data.split(b"\n"):
        if line:
            try:
                found = msgspec.json.decode(line)
            except msgspec.DecodeError:
                torn += 1
                continue
            try:
                rows += list(rows_of(found))
            except (KeyError, TypeError, ValueError):
                strange += 1
    return rows, torn, strange


def _read_parquet(path: Path) -> pd.DataFrame:
    """The file as a frame; whole numbers beside nulls stay whole."""
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as exc:
        raise DataError(
            f"{path} cannot be read ({exc}); a complete Parquet file is required, and its rows are nowhere else: bring it back "
            "from a copy, or move it out of the folder to go on without its rows"
        ) from exc
    frame = table.to_pandas()
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_integer(column.type) and column.null_count:
            frame[name] = pd.Series(column.to_pylist(), dtype=object)
    return frame


def _number(value: Any) -> float | None:
    """A number as the contract had read it: 3 and 3.0 are the same, and Parquet has one type for both."""
    return None if value is None else float(value)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value


def _frame(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """`rows` as a frame; keys stay what they are, a whole number beside nulls must not become a float."""
    keys = pd.Series([row["key"] for row in rows], dtype=object)
    return pd.DataFrame.from_records(rows, columns=list(columns)).assign(key=keys)


def _same_columns(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """`frame` with these columns; a version before had other features."""
    return frame.reindex(columns=list(columns)).assign(
        key=frame["key"].astype(object).where(frame["key"].notna(), None)
    )


def _times(column: pd.Series) -> pd.Series:
    return pd.to_datetime(column, utc=True, format="ISO8601").dt.tz_localize(None).astype("datetime64[us]")


def _utc(moment: str) -> str:
    """The ISO time of a request as the contract read it, in UTC; a time without a zone is UTC."""
    found = msgspec.convert(moment, datetime)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None).isoformat()


def _day(path: Path, folder: Path) -> str:
    return path.relative_to(folder).parts[0].removeprefix("date=")
