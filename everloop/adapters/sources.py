"""Where training rows come from: files through DuckDB, databases through SQLAlchemy; and the snapshots they become."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.domain.errors import DataError, DuplicateKeys, SchemaMismatch, SourceEmpty, SourceNotFound
from everloop.domain.spec import ModelSpec

READERS = {
    ".csv": "read_csv",
    ".gz": "read_csv",
    ".tsv": "read_csv",
    ".parquet": "read_parquet",
    ".pq": "read_parquet",
}
_CONNECT_SECONDS = 10  # a database that does not answer by then is not reachable


@dataclass(frozen=True)
class Snapshot:
    """What one training run read: rows in time order, the file they are kept in, and the file's digest."""

    rows: pd.DataFrame
    path: Path
    digest: str
    source_rows: int
    served_rows: int


def read_source(spec: ModelSpec, *, base: Path) -> pd.DataFrame:
    """The labelled rows of the spec's source with the spec's columns only, ordered by event time.

    Rows whose target is null are left out: their label has not arrived.

    Raises:
        SourceNotFound: the file, folder, glob or database cannot be reached.
        SourceEmpty: it holds no rows.
        SchemaMismatch: a column is missing, the time cannot be read, or every target is null.
        DuplicateKeys: the natural key repeats.
    """
    frame = _from_database(spec) if spec.data.is_database else _from_files(spec, base)
    where = mask_password(spec.data.source)
    if frame.empty:
        raise SourceEmpty(f"{where}: 0 rows; at least one labelled row is required: check the source or data.query")
    missing = [name for name in spec.columns if name not in frame.columns]
    if missing:
        raise SchemaMismatch(
            f"{where}: missing column {', '.join(map(repr, missing))}; found {', '.join(map(repr, frame.columns))}; "
            f"add it to the source or correct models/{spec.name}/model.toml"
        )
    frame = frame[list(spec.columns)]
    labelled = frame[frame[spec.target].notna()]
    if labelled.empty:
        raise SchemaMismatch(
            f"{where}: target {spec.target!r} is null in all {len(frame):,} rows; bring labels or correct target"
        )
    return order_rows(labelled, spec, where=where)


def order_rows(frame: pd.DataFrame, spec: ModelSpec, *, where: str) -> pd.DataFrame:
    """`frame` with a readable event time, unique keys, in time order (ties keep their order).

    Raises:
        SchemaMismatch: a time is null or no time.
        DuplicateKeys: the natural key repeats.
    """
    if spec.key is not None:
        keys = frame[spec.key].dropna()
        repeated = keys[keys.duplicated()]
        if len(repeated):
            raise DuplicateKeys(
                f"{where}: key {spec.key!r} repeats in {len(repeated):,} of {len(frame):,} rows (first: {repeated.iloc[0]!r}); "
                "each key may stand once: remove duplicates in the source or drop `key` from the spec"
            )
    if spec.time is None:
        return frame.reset_index(drop=True)
    times = read_times(frame[spec.time], where=f"{where}: time column {spec.time!r}")
    return frame.assign(**{spec.time: times}).sort_values(spec.time, kind="stable").reset_index(drop=True)


def read_times(column: pd.Series, *, where: str) -> pd.Series:
    """`column` as naive UTC timestamps (microseconds).

    Raises:
        SchemaMismatch: a value is null or no time.
    """
    if pd.api.types.is_numeric_dtype(column):
        raise SchemaMismatch(f"{where} holds numbers ({column.iloc[0]!r}); write ISO times such as 2026-01-31T12:00:00")
    times = pd.to_datetime(column, errors="coerce", utc=True, format=None if column.dtype.kind == "M" else "ISO8601")
    wrong = column[times.isna()]
    if len(wrong):
        raise SchemaMismatch(
            f"{where} cannot be read in {len(wrong):,} of {len(column):,} rows (first: {wrong.iloc[0]!r} in row "
            f"{wrong.index[0]}); write ISO times such as 2026-01-31T12:00:00"
        )
    return times.dt.tz_localize(None).astype("datetime64[us]")


def store_snapshot(rows: pd.DataFrame, folder: Path, *, source_rows: int, served_rows: int) -> Snapshot:
    """The snapshot of `rows`, kept as `<sha256>.parquet` in `folder`; equal rows share one file."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(rows, preserve_index=False)
    draft = folder / f".{id(rows)}-{np.random.default_rng().integers(2**62)}.tmp"
    pq.write_table(table.replace_schema_metadata(None), draft, compression="zstd")
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    path = folder / f"{digest}.parquet"
    draft.replace(path)
    return Snapshot(rows=rows, path=path, digest=digest, source_rows=source_rows, served_rows=served_rows)


def _from_files(spec: ModelSpec, base: Path) -> pd.DataFrame:
    with opened_files(spec, base) as connection:
        result: pd.DataFrame = connection.execute(spec.data.query or "select * from source").df()
    return result


@contextmanager
def opened_files(spec: ModelSpec, base: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the spec's files as the table `source`.

    Raises:
        SourceNotFound: no file is there, or files of both kinds are.
        DataError: they cannot be read, or what is asked of them fails.
    """
    source = spec.data.source.removeprefix("file://")
    path = Path(source) if Path(source).is_absolute() else base / source
    files = files_of(path)
    if not files:
        raise SourceNotFound(f"{path}: no CSV or Parquet file is there; correct data.source or bring the data")
    kinds = {READERS[file.suffix.lower()] for file in files}
    if len(kinds) > 1:
        raise SourceNotFound(
            f"{path}: holds CSV and Parquet files; keep one kind, or name them by a glob such as {source}/*.parquet"
        )
    with duckdb.connect() as connection:
        try:
            names = quote_names([escape(str(file)) for file in files])
            connection.execute(
                f"create temp view source as select * from {kinds.pop()}({names}, union_by_name = true)"  # noqa: S608
            )
            yield connection
        except duckdb.Error as exc:
            raise DataError(
                f"{path}: cannot be read: {str(exc).splitlines()[0]}; correct the file or data.query"
            ) from exc


def files_of(path: Path) -> list[Path]:
    """The CSV and Parquet files that a file, a folder or a glob stands for, in alphabetical order."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob(str(path), recursive=True) if Path(name).is_file())
    return [file for file in found if file.suffix.lower() in READERS and not file.name.startswith(".")]


def _from_database(spec: ModelSpec) -> pd.DataFrame:
    import sqlalchemy

    with opened_database(spec) as connection:
        return pd.read_sql(sqlalchemy.text(spec.data.query or ""), connection)


@contextmanager
def opened_database(spec: ModelSpec) -> Iterator[Any]:
    """A SQLAlchemy connection to the spec's database.

    Raises:
        SourceNotFound: it cannot be reached, or what is asked of it fails; passwords are masked.
    """
    import sqlalchemy

    where = mask_password(spec.data.source)
    try:
        url = sqlalchemy.make_url(spec.data.source)
        patience = {"connect_timeout": _CONNECT_SECONDS} if url.get_driver_name().startswith("psycopg") else {}
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
            raise SourceNotFound(f"{where}: the database file does not exist; correct data.source")
        with sqlalchemy.create_engine(url, connect_args=patience).connect() as connection:
            yield connection
    except (sqlalchemy.exc.SQLAlchemyError, pd.errors.DatabaseError, ModuleNotFoundError, ValueError) as exc:
        cause: Any = getattr(exc.__cause__ or exc, "orig", None) or exc.__cause__ or exc
        raise SourceNotFound(
            f"{where}: cannot be read: {str(cause).splitlines()[0]}; check the URL, the driver and data.query"
        ) from exc


def mask_password(url: str) -> str:
    """`url` as it may stand in a message."""
    hidden = re.sub(r"(://[^:/@]*):.+@", r"\1:***@", url)
    return re.sub(r"(?i)([?&](?:password|passwd|pwd|token|secret)=)[^&]*", r"\1***", hidden)


def quote_names(names: list[str]) -> str:
    return "[" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + "]"
