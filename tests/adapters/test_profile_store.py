"""The store of profiles: every captured row is counted once, whatever comes late, is rolled up, or dies on the way."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.adapters.profile_store import ProfileStore
from everloop.adapters.profiles import profile_rows, summarize_profile
from everloop.domain.errors import SchemaMismatch
from everloop.domain.schema import FeatureSchema, RowSchema
from everloop.domain.summaries import ProfileSummary

START = pd.Timestamp("2024-01-31")
END = START + pd.Timedelta(days=3)
SCHEMA = RowSchema(
    features=(
        FeatureSchema(name="x", role="numeric", type="number", nullable=True),
        FeatureSchema(name="c", role="categorical", type="text", nullable=True),
    )
)


def captured(hours: list[float], *, served: list[float] | None = None, first_id: int = 0) -> pd.DataFrame:
    """Rows with event times `hours` after START; x is the row's number, every tenth is null."""
    n = len(hours)
    numbers = np.arange(first_id, first_id + n, dtype=float)
    minutes = np.arange(n, dtype=float) if served is None else np.array(served, dtype=float)
    return pd.DataFrame(
        {
            "prediction_id": [f"{int(number):04d}" for number in numbers],
            "event_time": (START + pd.to_timedelta(hours, unit="h")).astype("datetime64[us]"),
            "served_at": (END + pd.to_timedelta(minutes, unit="m")).astype("datetime64[us]"),
            "x": np.where(numbers % 10 == 9, np.nan, numbers),
            "c": [f"c{int(number) % 3}" for number in numbers],
        }
    )


def profile(rows: pd.DataFrame) -> bytes:
    return profile_rows(rows, SCHEMA)


def never(rows: pd.DataFrame) -> bytes:
    raise AssertionError(f"{len(rows)} rows are profiled again")


def between(store: ProfileStore, start: datetime = START, end: datetime = END, **options: Any) -> ProfileSummary:
    found = store.between("7", start, end, **options)
    return ProfileSummary(rows=0) if found is None else summarize_profile(found)


def assert_counts(found: ProfileSummary, rows: pd.DataFrame) -> None:
    """Counts are exact, and so is the distribution of so few rows."""
    assert found.rows == len(rows)
    if not len(rows):
        return
    x, c = found.columns["x"], found.columns["c"]
    present = np.sort(rows["x"].dropna().to_numpy())
    assert (x.n, x.nulls, c.n, c.nulls) == (len(rows), len(rows) - len(present), len(rows), 0)
    assert c.categories == rows["c"].value_counts().to_dict()
    if len(present):
        assert x.cdf is not None
        assert (x.low, x.high) == (present[0], present[-1])
        assert x.cdf(present) == pytest.approx(np.arange(1, len(present) + 1) / len(present))


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path / "bike")


HOURS = st.floats(0, 71.99)
STEPS = st.lists(st.sampled_from(["update", "update", "day 1", "day 2", "days 3"]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), steps=STEPS, hours=st.lists(HOURS, min_size=1, max_size=30))
def test_any_order_of_updates_late_rows_and_roll_ups_gives_the_counts_of_the_whole(
    data: st.DataObject, steps: list[str], hours: list[float]
) -> None:
    minutes = st.lists(st.integers(0, 5), min_size=len(hours), max_size=len(hours))
    visible = st.lists(st.integers(0, len(steps)), min_size=len(hours), max_size=len(hours))
    rows, since = captured(hours, served=data.draw(minutes)), np.array(data.draw(visible))
    with TemporaryDirectory() as folder:
        store, counted = ProfileStore(Path(folder)), 0
        for at, step in enumerate([*steps, "update"]):
            if step == "update":
                seen = rows[since <= at]
                counted += store.update("7", seen.sample(frac=1, random_state=at), profile)
                assert_counts(between(store), seen)
            else:
                store.roll_up(START + pd.Timedelta(days=int(step[-1])))
        assert counted == len(rows)
        assert store.update("7", rows, never) == 0
        day = rows[rows["event_time"].dt.floor("D") == START + pd.Timedelta(days=1)]
        assert_counts(between(store, START + pd.Timedelta(days=1), START + pd.Timedelta(days=2)), day)


@settings(max_examples=40, deadline=None)
@given(hours=st.lists(HOURS, min_size=1, max_size=30), cuts=st.sets(st.integers(0, 30)), rolled=st.integers(0, 3))
def test_rows_given_only_once_in_the_order_of_capture_are_counted_once(
    hours: list[float], cuts: set[int], rolled: int
) -> None:
    rows = captured(hours)
    with TemporaryDirectory() as folder:
        store = ProfileStore(Path(folder))
        for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), len(rows)], strict=True):
            store.update("7", rows.iloc[first:last], profile)
            store.roll_up(START + pd.Timedelta(days=rolled))
        assert_counts(between(store), rows)


@settings(max_examples=40, deadline=None)
@given(hours=st.lists(HOURS, max_size=30), edges=st.lists(st.integers(0, 72), min_size=2, max_size=2))
def test_a_range_of_hours_holds_the_rows_of_these_hours(hours: list[float], edges: list[int]) -> None:
    rows, (low, high) = captured(hours), sorted(edges)
    start, end = START + pd.Timedelta(hours=low), START + pd.Timedelta(hours=high)
    with TemporaryDirectory() as folder:
        store = ProfileStore(Path(folder))
        store.update("7", rows, profile)
        assert_counts(between(store, start, end), rows[(rows["event_time"] >= start) & (rows["event_time"] < end)])


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and what is on the disk stays as it is."""


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Dies at the n-th step that touches the disk from now on; 0: never."""
    left = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real(*arguments, **options)

        return step

    def set_step(number: int) -> None:
        nonlocal left
        left = number

    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
    return set_step


def test_a_kill_at_any_step_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, die_at: Callable[[int], None]
) -> None:
    rows = captured([0.5, 1.5, 1.6, 25, 26, 49, 1.7, 2.5, 25.5], served=[1, 1, 2, 3, 4, 5, 0, 6, 7])
    early = rows.drop(index=6)[:5]  # row 6 was served first and becomes visible late

    def story(store: ProfileStore) -> None:
        store.update("7", early, profile)
        store.roll_up(START + pd.Timedelta(days=1))
        store.update("7", rows, profile)
        store.roll_up(START + pd.Timedelta(days=2))

    for step in range(1, 200):
        store = ProfileStore(tmp_path / str(step))
        die_at(step)
        try:
            story(store)
            break
        except Killed:
            die_at(0)
        assert between(store).rows <= len(rows)
        story(store)
        assert_counts(between(store), rows)
        assert store.update("7", rows, never) == 0
    assert 20 < step < 199  # the story has many steps, and the last round went through


def _update_again_and_again(folder: Path, seed: int) -> None:
    store, rng, rows = ProfileStore(folder), np.random.default_rng(seed), _many()
    while True:
        seen = rows[rows["served_at"] <= END + pd.Timedelta(minutes=int(rng.integers(0, 300)))]
        store.update("7", seen, profile)
        store.roll_up(START + pd.Timedelta(days=int(rng.integers(0, 4))))


def _many() -> pd.DataFrame:
    return captured(np.random.default_rng(1).uniform(0, 72, 300).tolist())


def test_processes_that_update_at_once_and_are_killed_count_every_row_once(tmp_path: Path) -> None:
    spawn, store = multiprocessing.get_context("spawn"), ProfileStore(tmp_path)
    workers = [spawn.Process(target=_update_again_and_again, args=(tmp_path, seed)) for seed in range(2)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 60
    try:
        while between(store).rows < 250 and time.monotonic() < deadline:
            store.update("7", _many().iloc[:100], profile)
        assert [worker.exitcode for worker in workers] == [None, None]  # none has met a half-done state of another
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    assert between(store).rows >= 250
    store.update("7", _many(), profile)
    assert_counts(between(store), _many())


def test_a_window_is_not_computed_again_and_only_new_rows_are_profiled(store: ProfileStore) -> None:
    rows = captured([0.1, 0.2, 0.3, 5.0])
    profiled: list[int] = []

    def noted(some: pd.DataFrame) -> bytes:
        profiled.append(len(some))
        return profile(some)

    assert store.update("7", rows[:2], noted) == 2
    assert store.update("7", rows[:2], never) == 0
    assert store.update("7", rows, noted) == 2
    assert profiled == [2, 1, 1]


def test_rows_that_expired_at_their_source_stay_in_the_profile(store: ProfileStore) -> None:
    rows = captured([0.1, 0.2, 0.3, 0.4])
    store.update("7", rows[:3], profile)
    assert store.update("7", rows[2:], profile) == 1
    assert_counts(between(store), rows)


def test_a_late_row_beside_expired_ones_of_a_rolled_up_day_is_left_out_and_said(
    store: ProfileStore, caplog: pytest.LogCaptureFixture
) -> None:
    rows = captured([0.1, 1.1, 1.2], served=[1, 2, 0])
    store.update("7", rows[:2], profile)
    store.roll_up(END)
    assert store.update("7", rows[1:], profile) == 0
    assert_counts(between(store), rows[:2])
    assert "1 rows became visible late and cannot be told from those that have expired" in caplog.text


def test_another_schema_makes_the_profile_again_from_rows(store: ProfileStore) -> None:
    rows = captured([0.1, 0.2])
    store.update("7", rows, profile, schema="a")
    store.update("7", rows, lambda some: profile_rows(some, SCHEMA, extra=some[["x"]].add_prefix("time.")), schema="b")
    assert set(between(store).columns) == {"x", "c", "time.x"}
    assert store.update("7", rows, never, schema="b") == 0


def test_versions_and_slices_stand_apart_whatever_they_are_called(store: ProfileStore, tmp_path: Path) -> None:
    names = [
        "",
        ".",
        "..",
        "a/b",
        "a%2Fb",
        "../../x",
        "season=1",
        "ü",
        "x" * 300,
        "x" * 299 + "y",
        "*",
        "\ud800",
        "windows",
    ]
    for count, name in enumerate(names, start=1):
        store.update("7", captured([0.5] * count), profile, slice=name)
        store.update(name, captured([0.5] * count), profile, slice="of version")
        store.put_window("7", name, profile(captured([0.5] * count)))
    for count, name in enumerate(names, start=1):
        assert between(store, slice=name).rows == count
        window, version = store.window("7", name), store.between(name, START, END, slice="of version")
        assert window is not None
        assert version is not None
        assert summarize_profile(window).rows == summarize_profile(version).rows == count
    assert [path.name for path in tmp_path.iterdir()] == ["bike"]


def test_a_row_window_is_kept_as_it_was_put_first(store: ProfileStore) -> None:
    first, second = profile(captured([0.5])), profile(captured([0.5, 0.6]))
    assert store.window("7", "rows-0-9") is None
    assert store.put_window("7", "rows-0-9", first) == first
    assert store.put_window("7", "rows-0-9", second) == first
    assert store.window("7", "rows-0-9") == first
    assert store.window("8", "rows-0-9") is None


@pytest.mark.parametrize("broken", [b"", b"garbage", b"{}\n", b'{"sha256": "0", "hours": {}, "schema": ""}\nsketch'])
def test_a_file_that_a_broken_disk_changed_is_put_aside_and_made_anew(
    broken: bytes, store: ProfileStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = captured([5.1, 5.2, 5.3])
    store.update("7", rows, profile)
    (hour,) = tmp_path.rglob("*T05.profile")
    hour.write_bytes(broken)
    assert store.between("7", START, END) is None
    assert "is not what was written" in caplog.text
    assert hour.with_suffix(".unreadable").read_bytes() == broken
    store.update("7", rows, profile)
    assert between(store).rows == 3


def test_an_unreadable_row_window_is_as_one_that_was_never_made(store: ProfileStore, tmp_path: Path) -> None:
    store.put_window("7", "w", b"sketch")
    (file,) = tmp_path.rglob("windows/*.profile")
    file.write_bytes(file.read_bytes()[:-1])
    assert store.window("7", "w") is None
    assert store.put_window("7", "w", b"anew") == b"anew"


def test_a_day_with_an_unreadable_hour_waits_to_be_rolled_up(store: ProfileStore, tmp_path: Path) -> None:
    rows = captured([5.1, 6.2])
    store.update("7", rows, profile)
    next(tmp_path.rglob("*T06.profile")).write_bytes(b"")
    assert store.roll_up(END) == 0
    store.update("7", rows, profile)
    assert store.roll_up(END) == 1
    assert between(store).rows == 2


def test_rolled_up_days_are_one_file_and_part_of_a_day_cannot_be_told_any_more(
    store: ProfileStore, tmp_path: Path
) -> None:
    rows = captured([0.5, 5.5, 30.5, 50.5])
    store.update("7", rows, profile)
    assert store.roll_up(START + pd.Timedelta(hours=47)) == 1
    assert store.roll_up(START + pd.Timedelta(hours=47)) == 0
    names = {path.name for path in tmp_path.rglob("*.profile")}
    assert names == {"2024-01-31.profile", "2024-02-01T06.profile", "2024-02-02T02.profile"}
    assert store.between("7", START, START + pd.Timedelta(hours=3)) is None
    assert_counts(between(store, START, START + pd.Timedelta(hours=6)), rows[:2])
    assert_counts(between(store), rows)


def test_what_is_older_than_the_retention_is_deleted_and_does_not_come_back(store: ProfileStore) -> None:
    rows = captured([0.5, 30.5, 50.5])
    store.update("7", rows, profile)
    store.roll_up(START + pd.Timedelta(days=1))
    gone = store.expire((START + pd.Timedelta(days=2, hours=5)).tz_localize("UTC"))
    assert [path.name for path in gone] == ["2024-01-31.profile", "2024-02-01T06.profile"]
    assert store.update("7", rows, never) == 0
    assert store.between("7", START, END) is None
    assert_counts(between(store, START + pd.Timedelta(days=2)), rows[2:])
    assert store.expire(START) == []
    assert store.update("7", rows, never) == 0


def test_row_windows_expire_by_when_they_were_made(store: ProfileStore) -> None:
    store.put_window("7", "rows-0-9", profile(captured([0.5])))
    assert store.expire(datetime(2020, 1, 1)) == []
    (gone,) = store.expire(datetime.now(UTC).replace(year=datetime.now(UTC).year + 1, day=1))
    assert gone.name == "rows-0-9.profile"
    assert store.window("7", "rows-0-9") is None


def test_half_hours_are_refused_because_profiles_are_hourly(store: ProfileStore) -> None:
    with pytest.raises(
        ValueError, match=r"2024-01-31 00:30:00 to .* are not whole hours, which profiles are kept by; keep it"
    ):
        store.between("7", START + pd.Timedelta(minutes=30), END)


def test_a_row_without_event_time_is_refused(store: ProfileStore) -> None:
    rows = captured([0.5, 0.6])
    rows.loc[0, "event_time"] = pd.NaT
    with pytest.raises(SchemaMismatch, match="1 of 2 captured rows have no event_time; one a row is required"):
        store.update("7", rows, profile)


def test_a_store_without_profiles_has_none(store: ProfileStore) -> None:
    assert store.update("7", captured([]), never) == 0
    assert store.between("7", START, END) is None
    assert (store.roll_up(END), store.expire(END)) == (0, [])
