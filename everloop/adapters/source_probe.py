"""A look at a source without reading it: is it there, how many rows, how new, which columns; and single rows by their keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api import types

from everloop.adapters.sources import mask_password, opened_database, opened_files, read_times
from everloop.domain.dependencies import ColumnType, SourceState
from everloop.domain.errors import DataError, SchemaMismatch
from everloop.domain.spec import ModelSpec

MAX_KEYS = 5000
_HEAD = 1000  # rows by which a database's column types are told: SQLite has types of values only
_KEYS_AT_ONCE = 1000  # databases bound the parameters of a statement


def probe_source(spec: ModelSpec, *, base: Path) -> SourceState:
    """What the spec's source is like now, by one aggregate query; one that cannot be read is a state with a reason."""
    where = mask_password(spec.data.source)
    try:
        with _opened(spec, base) as source:
            columns = source.columns()
            count, labelled, newest = source.aggregate(
                target=spec.target if spec.target in columns else None,
                time=spec.time if spec.time is not None and spec.time in columns else None,
            )
    except (DataError, OSError) as exc:
        return SourceState(reachable=False, reason=str(exc) if isinstance(exc, DataError) else f"{where}: {exc}")
    missing = [name for name in spec.columns if name not in columns]
    lacks = f"; it lacks {', '.join(map(repr, missing))}" if missing else ""
    iso, unreadable = _iso(newest, spec)
    return SourceState(
        reachable=True,
        reason=f"{where}: {count:,} rows, {labelled:,} of them labelled{lacks}{unreadable}",
        rows=count,
        labelled=labelled,
        newest=iso,
        columns=columns,
    )


def read_keys(spec: ModelSpec, *, base: Path, keys: Sequence[Any]) -> pd.DataFrame:
    """The source's rows that carry one of `keys`, at most 5,000 of them, with the spec's columns that it has.

    Keys are whole numbers or texts, as the source has them.

    Raises:
        ValueError: the spec has no key, or there are too many keys.
        DataError: the source cannot be read, or has no such key column.
    """
    if spec.key is None:
        raise ValueError(f"model {spec.name!r} has no key; set key in models/{spec.name}/model.toml")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"{len(keys):,} keys, at most {MAX_KEYS:,} are looked up at once; take a sample")
    with _opened(spec, base) as source:
        found = source.columns()
        names = [name for name in spec.columns if name in found]
        if spec.key not in names:
            raise SchemaMismatch(
                f"{mask_password(spec.data.source)}: key column {spec.key!r} is not there; found "
                f"{', '.join(map(repr, found))}; correct key or data.query"
            )
        return source.rows(names, spec.key, [key.item() if hasattr(key, "item") else key for key in keys])


class _Files:
    """Files as a DuckDB relation."""

    def __init__(self, connection: Any, query: str) -> None:
        self._connection = connection
        connection.execute(f"create temp view probed as {query}")

    def columns(self) -> dict[str, ColumnType]:
        """Names and coarse types, by DuckDB's own."""
        found = self._connection.execute("describe probed").fetchall()
        return {name: _type_of_duckdb(kind) for name, kind, *_ in found}

    def aggregate(self, *, target: str | None, time: str | None) -> tuple[int, int, Any]:
        """Rows, rows with a target, the latest time."""
        labelled = f"count({_quoted(target)})" if target is not None else "0"
        newest = f"max({_quoted(time)})" if time is not None else "null"
        row = self._connection.execute(f"select count(*), {labelled}, {newest} from probed").fetchone()  # noqa: S608
        return int(row[0]), int(row[1]), row[2]

    def rows(self, names: Sequence[str], key: str, keys: Sequence[Any]) -> pd.DataFrame:
        """Rows by their key."""
        chosen = ", ".join(map(_quoted, names))
        query = f"select {chosen} from probed where {_quoted(key)} in (select unnest(?))"  # noqa: S608
        result: pd.DataFrame = self._connection.execute(query, [list(keys)]).df()
        return result


class _Database:
    """A query of a database."""

    def __init__(self, connection: Any, query: str) -> None:
        import sqlalchemy

        self._connection = connection
        self._query = sqlalchemy.text(f"({query.rstrip().rstrip(';')}\n) source")  # a comment may end it

    def columns(self) -> dict[str, ColumnType]:
        """Names and coarse types, by the values of the first rows."""
        from sqlalchemy import literal_column, select

        head = pd.read_sql(select(literal_column("*")).select_from(self._query).limit(_HEAD), self._connection)
        return {str(name): _type_of_values(head[name]) for name in head}

    def aggregate(self, *, target: str | None, time: str | None) -> tuple[int, int, Any]:
        """Rows, rows with a target, the latest time."""
        from sqlalchemy import column, func, literal, null, select

        labelled = func.count(column(target)) if target is not None else literal(0)
        newest = func.max(column(time)) if time is not None else null()
        row = self._connection.execute(
            select(func.count().label("n"), labelled.label("labelled"), newest.label("newest")).select_from(self._query)
        ).one()
        return int(row[0]), int(row[1]), row[2]

    def rows(self, names: Sequence[str], key: str, keys: Sequence[Any]) -> pd.DataFrame:
        """Rows by their key."""
        from sqlalchemy import column, select

        wanted = select(*map(column, names)).select_from(self._query)
        pieces = [keys[first : first + _KEYS_AT_ONCE] for first in range(0, len(keys), _KEYS_AT_ONCE)] or [keys]
        frames = [pd.read_sql(wanted.where(column(key).in_(list(piece))), self._connection) for piece in pieces]
        full = [frame for frame in frames if len(frame)]
        return pd.concat(full, ignore_index=True) if full else frames[0]


@contextmanager
def _opened(spec: ModelSpec, base: Path) -> Iterator[_Files | _Database]:
    """The spec's source, open for questions.

    Raises:
        DataError: it is not there, or what is asked of it fails; passwords are masked.
    """
    with _database(spec) if spec.data.is_database else _files(spec, base) as source:
        yield source


@contextmanager
def _files(spec: ModelSpec, base: Path) -> Iterator[_Files]:
    with opened_files(spec, base) as connection:
        yield _Files(connection, spec.data.query or "select * from source")


@contextmanager
def _database(spec: ModelSpec) -> Iterator[_Database]:
    with opened_database(spec) as connection:
        yield _Database(connection, spec.data.query or "")


def _iso(newest: Any, spec: ModelSpec) -> tuple[str | None, str]:
    """The newest time in ISO form, naive UTC, and what is wrong with it."""
    if newest is None:
        return None, ""
    try:
        found = read_times(pd.Series([newest]), where=f"time column {spec.time!r}").iloc[0]
    except SchemaMismatch as exc:
        return None, f"; {exc}"
    return found.isoformat(), ""


def _type_of_duckdb(kind: str) -> ColumnType:
    name = kind.upper()
    if name == "BOOLEAN":
        return "boolean"
    if name.endswith(("INT", "INTEGER")):
        return "integer"
    if name in ("FLOAT", "DOUBLE", "REAL") or name.startswith("DECIMAL"):
        return "number"
    if name.startswith(("TIMESTAMP", "DATE", "TIME")):
        return "time"
    return "unknown" if name in ('"NULL"', "NULL") else "text"


def _type_of_values(column: pd.Series) -> ColumnType:
    present = column.dropna().infer_objects()
    if not len(present):
        return "unknown"
    if types.is_bool_dtype(present):
        return "boolean"
    if types.is_integer_dtype(present):
        return "integer"
    if types.is_float_dtype(present):
        return "number"
    if types.is_datetime64_any_dtype(present):
        return "time"
    kind = types.infer_dtype(present, skipna=True)
    return "number" if kind == "decimal" else "time" if kind in ("date", "datetime", "time") else "text"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
