"""Sources: the same rows however they are kept; whatever is wrong with them, in one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy

from everloop.adapters.sources import Snapshot, order_rows, read_source, read_times, store_snapshot
from everloop.domain.errors import DataError, DuplicateKeys, SchemaMismatch, SourceEmpty, SourceNotFound
from tests.factories import make_rows, make_spec

SPEC = make_spec()
ROWS = make_rows(40)
EXPECTED = ROWS[list(SPEC.columns)]


def read(source: str | Path, base: Path, query: str | None = None) -> pd.DataFrame:
    return read_source(make_spec(data={"source": str(source), "query": query}), base=base)


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'rentals.db'}"
    ROWS.to_sql("rentals", sqlalchemy.create_engine(url), index=False)
    return url


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.csv", lambda rows, path: rows.to_csv(path, index=False)),
        ("rows.csv.gz", lambda rows, path: rows.to_csv(path, index=False)),
        ("rows.tsv", lambda rows, path: rows.to_csv(path, index=False, sep="\t")),
        ("rows.parquet", lambda rows, path: rows.to_parquet(path)),
        ("rows.pq", lambda rows, path: rows.to_parquet(path)),
    ],
)
@pytest.mark.parametrize("address", ["{name}", "{base}/{name}", "file://{base}/{name}", "*{name}", "."])
def test_every_kind_and_address_of_file_gives_the_same_rows(
    tmp_path: Path, name: str, write: Callable[[pd.DataFrame, Path], None], address: str
) -> None:
    write(ROWS, tmp_path / name)
    pd.testing.assert_frame_equal(read(address.format(name=name, base=tmp_path), tmp_path), EXPECTED)


def test_a_folder_is_all_its_files_below_it_and_none_that_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "2024" / "03").mkdir(parents=True)
    ROWS.iloc[20:].to_parquet(tmp_path / "a.parquet")
    ROWS.iloc[:20].to_parquet(tmp_path / "2024" / "03" / "z.parquet")
    (tmp_path / ".draft.parquet").write_bytes(b"half written")
    pd.testing.assert_frame_equal(read(".", tmp_path), EXPECTED)


def test_files_with_other_column_orders_are_read_by_name(tmp_path: Path) -> None:
    ROWS.iloc[:20].to_parquet(tmp_path / "a.parquet")
    ROWS.iloc[20:][list(ROWS.columns[::-1])].to_parquet(tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(read("*.parquet", tmp_path), EXPECTED)


def test_a_query_on_files_runs_over_the_table_source(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    assert read("rows.csv", tmp_path, "select * from source where id between 3 and 5")["id"].tolist() == [3, 4, 5]


def test_a_query_on_a_database_runs_there(database: str, tmp_path: Path) -> None:
    found = read(database, tmp_path, "select * from rentals where id > 30")
    pd.testing.assert_frame_equal(found.astype({"holiday": bool}), EXPECTED.iloc[30:].reset_index(drop=True))


def test_rows_come_in_time_order_with_ties_as_they_were(tmp_path: Path) -> None:
    tied = ROWS.head(4).assign(when=["2024-03-02", "2024-03-01", "2024-03-02", "2024-03-01"])
    tied.to_csv(tmp_path / "rows.csv", index=False)
    assert read("rows.csv", tmp_path)["id"].tolist() == [2, 4, 1, 3]


def test_times_are_naive_utc_whatever_zone_they_were_written_in() -> None:
    written = pd.Series(["2024-03-01T02:00:00+02:00", "2024-03-01", "2024-03-01T00:00:00Z"])
    assert set(read_times(written, where="here")) == {pd.Timestamp(2024, 3, 1)}


def test_without_a_time_column_the_order_of_the_source_stays() -> None:
    spec = make_spec(time=None, data={"source": "rows.csv", "include_served": False})
    assert order_rows(ROWS.iloc[::-1], spec, where="here")["id"].tolist() == list(range(40, 0, -1))


def test_rows_whose_label_has_not_arrived_are_left_out(tmp_path: Path) -> None:
    ROWS.assign(cnt=ROWS["cnt"].where(ROWS["id"] > 10)).to_csv(tmp_path / "rows.csv", index=False)
    assert read("rows.csv", tmp_path)["id"].min() == 11


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (ROWS.iloc[:0], SourceEmpty, r"rows.csv: 0 rows; at least one labelled row is required: check the source"),
        (
            ROWS.drop(columns=["temp", "city"]),
            SchemaMismatch,
            r"rows.csv: missing column 'temp', 'city'; found 'id', 'when', 'wind', .*models/bikes/model.toml",
        ),
        (ROWS.assign(cnt=None), SchemaMismatch, r"rows.csv: target 'cnt' is null in all 40 rows; bring labels"),
        (ROWS.assign(when=7), SchemaMismatch, r"time column 'when' holds numbers \(7\); write ISO times such as"),
        (
            ROWS.assign(when=["2024-03-01"] * 38 + ["soon", None]),
            SchemaMismatch,
            r"time column 'when' cannot be read in 2 of 40 rows \(first: 'soon' in row 38\); write ISO times",
        ),
        (
            pd.concat([ROWS, ROWS.iloc[4:7]]),
            DuplicateKeys,
            r"rows.csv: key 'id' repeats in 3 of 43 rows \(first: 5\); .* remove duplicates in the source or drop `key`",
        ),
    ],
    ids=["no rows", "missing columns", "no labels", "numbers as time", "text as time", "repeated keys"],
)
def test_rows_that_do_not_fit_the_spec_are_refused(
    tmp_path: Path, rows: pd.DataFrame, error: type[Exception], message: str
) -> None:
    rows.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(error, match=message):
        read("rows.csv", tmp_path)


def test_an_unreadable_time_is_named_by_its_row_in_the_source(tmp_path: Path) -> None:
    rows = ROWS.assign(cnt=ROWS["cnt"].where(ROWS["id"] > 10), when=["2024-03-01"] * 30 + ["soon"] * 10)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(SchemaMismatch, match="'soon' in row 30"):
        read("rows.csv", tmp_path)


@pytest.mark.parametrize("source", ["absent.csv", "absent/", "*.parquet", "notes.txt"])
def test_a_source_that_is_not_there_is_named_with_its_full_path(tmp_path: Path, source: str) -> None:
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(SourceNotFound, match=f"{tmp_path}/.*: no CSV or Parquet file is there; correct data.source"):
        read(source, tmp_path)


def test_a_folder_with_two_kinds_of_files_asks_for_one(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    ROWS.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(SourceNotFound, match=r"holds CSV and Parquet files; keep one kind, or name them by a glob"):
        read(".", tmp_path)


@pytest.mark.parametrize(
    ("name", "query", "message"),
    [
        ("rows.parquet", None, "cannot be read: .*No magic bytes.*; correct the file or data.query"),
        ("rows.csv.gz", None, "cannot be read: .*not a GZIP stream.*; correct the file or data.query"),
        ("rows.csv", "select nope from source", 'cannot be read: .*column "nope" not found.*; correct the file or'),
    ],
)
def test_a_broken_file_or_query_is_refused_in_duckdbs_words(
    tmp_path: Path, name: str, query: str | None, message: str
) -> None:
    (tmp_path / name).write_bytes(b"id,when\n1,2024-03-01\n")
    with pytest.raises(DataError, match=message) as caught:
        read(name, tmp_path, query)
    assert "\n" not in str(caught.value)


def test_a_file_with_brackets_in_its_name_is_found(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "rows [2024].csv", index=False)
    pd.testing.assert_frame_equal(read("rows [2024].csv", tmp_path), EXPECTED)


def test_a_missing_database_file_is_refused_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "absent.db"
    with pytest.raises(SourceNotFound, match=r"absent.db: the database file does not exist; correct data.source"):
        read(f"sqlite:///{path}", tmp_path, "select 1")
    assert not path.exists()


def test_a_query_that_the_database_refuses_is_one_sentence(database: str, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"no such table: nope; check the URL, the driver and data.query"):
        read(database, tmp_path, "select * from nope")


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://reader:s3cret@host/db",
        "nosuch+driver://reader:s3cret@host:5432/db?sslmode=require",
        pytest.param(
            "nosuch://:s3cret@host/db",
        ),
        pytest.param(
            "nosuch://reader:p@s3cret@host/db",
        ),
        pytest.param(
            "nosuch://host/db?password=s3cret",
        ),
    ],
)
def test_a_password_never_stands_in_a_message(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceNotFound, match=r"cannot be read: Can't load plugin.*check the URL, the driver") as caught:
        read(url, tmp_path, "select 1")
    assert "s3cret" not in str(caught.value)


def snapshot(rows: pd.DataFrame, folder: Path) -> Snapshot:
    return store_snapshot(rows, folder, source_rows=len(rows), served_rows=0)


def test_equal_rows_share_one_snapshot_and_other_rows_do_not(tmp_path: Path) -> None:
    first, again = (
        snapshot(EXPECTED, tmp_path / "kept"),
        snapshot(EXPECTED.set_index(EXPECTED.index + 5), tmp_path / "kept"),
    )
    other = snapshot(EXPECTED.assign(temp=EXPECTED["temp"] + 0.01), tmp_path / "kept")
    assert first.digest == again.digest != other.digest
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {first.path.name, other.path.name}


def test_a_snapshot_is_named_by_the_digest_of_its_file_and_gives_back_the_rows(tmp_path: Path) -> None:
    kept = snapshot(EXPECTED, tmp_path)
    assert kept.path.name == f"{hashlib.sha256(kept.path.read_bytes()).hexdigest()}.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(kept.path), EXPECTED)
