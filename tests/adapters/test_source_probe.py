"""Looking at a source: the same state however it is kept, and a reason instead of a crash."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy

from everloop.adapters.source_probe import MAX_KEYS, probe_source, read_keys
from everloop.adapters.sources import read_source
from everloop.domain.dependencies import find_skew
from everloop.domain.errors import DataError, SchemaMismatch
from everloop.domain.frames import derive_schema
from everloop.domain.spec import ModelSpec, parse_spec
from tests.factories import make_rows, make_spec

ROWS = make_rows(40).assign(cnt=lambda rows: rows["cnt"].where(rows["id"] > 5))
TYPES = {
    "id": "integer",
    "when": "time",
    "temp": "number",
    "wind": "number",
    "season": "integer",
    "city": "text",
    "holiday": "boolean",
    "cnt": "number",
    "busy": "text",
}
Write = Callable[[pd.DataFrame, Path], tuple[str, str | None]]


def as_csv(rows: pd.DataFrame, base: Path) -> tuple[str, str | None]:
    rows.to_csv(base / "rows.csv", index=False)
    return "rows.csv", None


def as_parquet(rows: pd.DataFrame, base: Path) -> tuple[str, str | None]:
    rows.iloc[:20].to_parquet(base / "a.parquet")
    rows.iloc[20:].to_parquet(base / "b.parquet")
    return "*.parquet", "select * from source; -- all of it"


def as_table(rows: pd.DataFrame, base: Path) -> tuple[str, str | None]:
    url = f"sqlite:///{base / 'rentals.db'}"
    rows.to_sql("rentals", sqlalchemy.create_engine(url), index=False)
    return url, "select * from rentals;"


def spec_of(written: tuple[str, str | None], **changes: Any) -> ModelSpec:
    return make_spec(data={"source": written[0], "query": written[1]}, **changes)


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_table])
def test_a_source_is_described_without_being_read(tmp_path: Path, write: Write) -> None:
    state = probe_source(spec_of(write(ROWS, tmp_path)), base=tmp_path)
    assert (state.reachable, state.rows, state.labelled) == (True, 40, 35)
    assert state.newest == ROWS["when"].iloc[-1].isoformat()
    # SQLite has no times and no booleans of its own; DuckDB reads yes and no in a CSV file as booleans
    told = {as_table: {"when": "text", "holiday": "integer"}, as_csv: {"busy": "boolean"}}
    assert state.columns == TYPES | told.get(write, {})
    assert state.reason.endswith("40 rows, 35 of them labelled")


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_table])
def test_a_source_without_rows_is_a_state(tmp_path: Path, write: Write) -> None:
    state = probe_source(spec_of(write(ROWS.iloc[:0], tmp_path)), base=tmp_path)
    assert (state.reachable, state.rows, state.labelled, state.newest) == (True, 0, 0, None)
    assert list(state.columns) == list(TYPES)


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_table])
def test_a_source_that_lacks_columns_says_which(tmp_path: Path, write: Write) -> None:
    state = probe_source(spec_of(write(ROWS.drop(columns=["cnt", "when", "city"]), tmp_path)), base=tmp_path)
    assert (state.reachable, state.rows, state.labelled, state.newest) == (True, 40, 0, None)
    assert state.reason.endswith("it lacks 'when', 'city', 'cnt'")


def test_a_column_that_turned_to_text_is_seen(tmp_path: Path) -> None:
    rows = ROWS.assign(temp=ROWS["temp"].astype(object).where(ROWS["id"] != 30, "n/a"))
    assert probe_source(spec_of(as_csv(rows, tmp_path)), base=tmp_path).columns["temp"] == "text"


def test_times_with_a_zone_are_told_in_utc(tmp_path: Path) -> None:
    rows = ROWS.assign(when=ROWS["when"].dt.tz_localize("Europe/Warsaw"))
    rows.to_parquet(tmp_path / "rows.parquet")
    state = probe_source(spec_of(("rows.parquet", None)), base=tmp_path)
    assert state.newest == rows["when"].iloc[-1].tz_convert("UTC").tz_localize(None).isoformat()


def test_a_time_that_is_none_leaves_the_age_open(tmp_path: Path) -> None:
    state = probe_source(spec_of(as_csv(ROWS.assign(when=7), tmp_path)), base=tmp_path)
    assert (state.reachable, state.newest) == (True, None)
    assert "time column 'when' holds numbers (7)" in state.reason


@pytest.mark.parametrize(
    ("source", "query", "reason"),
    [
        ("nowhere.csv", None, "nowhere.csv: no CSV or Parquet file is there"),
        ("torn.parquet", None, "torn.parquet: cannot be read"),
        ("rows.csv", "select * from elsewhere", "rows.csv: cannot be read: Catalog Error"),
        ("*.*", None, "holds CSV and Parquet files"),
        ("sqlite:///nowhere.db", "select 1", "the database file does not exist"),
        (
            "postgresql+psycopg://eve:s3cret@127.0.0.1:9/db",
            "select 1",
            "postgresql+psycopg://eve:***@127.0.0.1:9/db: cannot",
        ),
        ("nodriver://eve:s3cret@127.0.0.1/db", "select 1", "nodriver://eve:***@127.0.0.1/db: cannot be read"),
    ],
)
def test_a_source_that_cannot_be_read_is_a_state_with_a_reason(
    tmp_path: Path, source: str, query: str | None, reason: str
) -> None:
    as_csv(ROWS, tmp_path)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    state = probe_source(spec_of((source, query)), base=tmp_path)
    assert (state.reachable, state.rows, state.columns) == (False, None, {})
    assert reason in state.reason
    assert "s3cret" not in state.reason


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_table])
def test_rows_are_found_by_their_keys(tmp_path: Path, write: Write) -> None:
    spec = spec_of(write(ROWS, tmp_path))
    found = read_keys(spec, base=tmp_path, keys=[39, 7, 7, 1000])
    assert sorted(found["id"]) == [7, 39]
    assert list(found) == list(spec.columns)
    assert len(read_keys(spec, base=tmp_path, keys=[])) == 0
    assert len(read_keys(spec, base=tmp_path, keys=list(range(MAX_KEYS)))) == 40


def test_text_keys_are_found_and_are_no_sql(tmp_path: Path) -> None:
    rows = ROWS.assign(id=[f"ride '{number}'" for number in ROWS["id"]])
    for write in (as_csv, as_table):
        found = read_keys(spec_of(write(rows, tmp_path)), base=tmp_path, keys=["ride '7'", "' or 1=1 --"])
        assert found["temp"].tolist() == [ROWS["temp"][6]]


def test_keys_are_refused_where_there_are_none_or_too_many(tmp_path: Path) -> None:
    written = as_csv(ROWS.drop(columns="id"), tmp_path)
    with pytest.raises(
        SchemaMismatch, match=r"key column 'id' is not there; found 'when', .*; correct key or data.query"
    ):
        read_keys(spec_of(written), base=tmp_path, keys=[1])
    with pytest.raises(ValueError, match=r"model 'bikes' has no key; set key in models/bikes/model.toml"):
        read_keys(spec_of(written, key=None), base=tmp_path, keys=[1])
    with pytest.raises(ValueError, match=r"5,001 keys, at most 5,000 are looked up at once; take a sample"):
        read_keys(spec_of(written), base=tmp_path, keys=list(range(MAX_KEYS + 1)))
    with pytest.raises(DataError, match=r"gone.csv: no CSV or Parquet file is there"):
        read_keys(spec_of(("gone.csv", None)), base=tmp_path, keys=[1])


def test_the_real_bikes_have_no_skew_against_themselves_and_one_when_a_unit_changes(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    shutil.copytree(root / "data" / "bike_sharing", tmp_path / "data" / "bike_sharing")
    spec = parse_spec((root / "models" / "bike-demand" / "model.toml").read_text(), origin="model.toml")
    rows = read_source(spec, base=tmp_path)
    state = probe_source(spec, base=tmp_path)
    assert (state.rows, state.newest) == (len(rows), rows["datetime"].iloc[-1].isoformat())
    served = rows.tail(300).astype({"temp": "float32", "hum": "float32"})
    schema = derive_schema(rows, spec)
    source = read_keys(spec, base=tmp_path, keys=served["instant"].tolist())
    assert {s.differing for s in find_skew(served, source, schema)} == {0}
    assert find_skew(served.assign(hum=served["hum"] * 100), source, schema)[0].column == "hum"
