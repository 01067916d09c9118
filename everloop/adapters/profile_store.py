"""Profiles on disk, so that a window is never computed from rows twice.

    profiles/<model>/version=7/slice=<name>/2024-01-31T05.profile    the rows of one hour of event time
    profiles/<model>/version=7/slice=<name>/2024-01-31.profile       those of a closed day, rolled up from its hours
    profiles/<model>/version=7/slice=<name>/windows/<id>.profile     a row window, which never changes
    profiles/<model>/expired                                         the day before which nothing is kept

A file begins with one line: for each of its hours how many rows were merged in, and the newest of them in the order
of capture (served_at, prediction_id), the watermark. Rows after the watermark are merged in; that line and the sketches are
one file, renamed into place, so a kill leaves the old state or the new one. The line has the digest of the sketches too: a
file that a broken disk has changed is put aside as `<name>.unreadable` and made anew from rows. A day is renamed into place
before its hours are deleted: hours beside their day are in it already. One lock a model serializes the processes of a host.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from everloop.adapters.locks import one_at_a_time
from everloop.adapters.profiles import merge_profiles
from everloop.domain.errors import SchemaMismatch

log = logging.getLogger("everloop.profile_store")

_LONGEST_NAME = 100
_HOUR, _DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)


@dataclass(frozen=True)
class _Merged:
    """What of one hour is in a profile: so many rows, up to this one."""

    rows: int
    served_at: str
    prediction_id: str


@dataclass(frozen=True)
class _Stretch:
    """The profile of the rows of some hours of event time, by the hour's ISO name such as 2024-01-31T05."""

    schema: str
    hours: Mapping[str, _Merged]
    profile: bytes


class ProfileStore:
    """The profiles of one model, in `folder`. Times are event times in UTC, naive or with a zone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def update(
        self,
        version: str,
        rows: pd.DataFrame,
        profile: Callable[[pd.DataFrame], bytes],
        *,
        slice: str = "",
        schema: str = "",
    ) -> int:
        """How many of `rows` were not counted before; afterwards they are in the profiles of their hours or days, once.

        `rows` are the captured rows of the version (and slice) that are known of the hours they touch, with columns
        event_time, served_at, prediction_id (naive UTC). Those after the watermark are profiled and merged in. If more rows
        are known up to the watermark than were counted, one became visible late, and the hour (or day) is made again from
        rows, as it is when `schema` is another than before; if fewer are known, rows have expired or are not given, and the
        profile is kept.

        Raises:
            SchemaMismatch: a row has no event time, or `profile` raises it.
        """
        if rows["event_time"].isna().any():
            raise SchemaMismatch(
                f"{int(rows['event_time'].isna().sum()):,} of {len(rows):,} captured rows have no event_time; one a row is required"
            )
        folder, counted = self._of(version, slice), 0
        with self._locked():
            expired = self._expired()
            kept = rows if expired is None else rows[rows["event_time"] >= expired]
            for day, of_day in kept.groupby(kept["event_time"].dt.floor("D")):
                path = folder / f"{pd.Timestamp(str(day)).isoformat()[:10]}.profile"
                if path.exists():
                    counted += _bring_up_to_date(path, of_day, profile, schema)
                    continue
                for hour, of_hour in of_day.groupby(_hours(of_day)):
                    counted += _bring_up_to_date(folder / f"{hour}.profile", of_hour, profile, schema)
        return counted

    def between(self, version: str, start: datetime, end: datetime, *, slice: str = "") -> bytes | None:
        """The profile of the rows with start <= event time < end, both whole hours.

        None if no row is kept, or if it cannot be told: part of the time has expired, or of a rolled-up day, or was unreadable.

        Raises:
            ValueError: `start` or `end` is not a whole hour.
        """
        first, last = _utc(start), _utc(end)
        if first != first.floor("h") or last != last.floor("h"):
            raise ValueError(
                f"{first} to {last} are not whole hours, which profiles are kept by; keep it with put_window"
            )
        found = []
        with self._locked():
            expired = self._expired()
            if expired is not None and first < expired:
                return None
            for path in _current_stretches(self._of(version, slice)):
                begin = _begin(path)
                if begin >= last or begin + (_HOUR if "T" in path.stem else _DAY) <= first:
                    continue
                stretch = _read(path)
                if stretch is None:
                    return None
                inside = [first <= pd.Timestamp(hour) < last for hour in stretch.hours]
                if all(inside):
                    found.append(stretch.profile)
                elif any(inside):
                    return None
        return merge_profiles(found) if found else None

    def roll_up(self, before: datetime) -> int:
        """How many days ended at or before `before` and became one file each."""
        days = 0
        with self._locked():
            for folder in self._folders():
                by_day: dict[str, list[Path]] = {}
                for path in sorted(folder.glob("*T*.profile")):
                    by_day.setdefault(path.stem[:10], []).append(path)
                for day, hours in by_day.items():
                    if pd.Timestamp(day) + _DAY <= _utc(before):
                        days += _roll_up_day(folder / f"{day}.profile", hours)
        return days

    def expire(self, older_than: datetime) -> list[Path]:
        """The deleted files: hours and days that ended by the midnight before `older_than`, row windows made before it.

        Rows of that time are not profiled again.
        """
        gone = []
        with self._locked():
            until = _utc(older_than).floor("D")
            until = max(until, self._expired() or until)
            _replace(self._folder / "expired", until.isoformat().encode())
            for folder in self._folders():
                gone += [path for path in _files(folder) if _begin(path) < until]
                made_before = _utc(older_than).tz_localize("UTC").timestamp()
                gone += [path for path in _files(folder / "windows") if path.stat().st_mtime < made_before]
            for path in gone:
                path.unlink()
        return gone

    def window(self, version: str, window_id: str, *, slice: str = "") -> bytes | None:
        """The profile that is kept of a row window, None if there is none."""
        with self._locked():
            return self._window(self._window_path(version, window_id, slice))

    def put_window(self, version: str, window_id: str, profile: bytes, *, slice: str = "") -> bytes:
        """The profile that is kept of the row window from now on: the first one that was put."""
        path = self._window_path(version, window_id, slice)
        with self._locked():
            kept = self._window(path)
            if kept is None:
                _write(path, _Stretch("", {}, profile))
            return profile if kept is None else kept

    def _window_path(self, version: str, window_id: str, slice: str) -> Path:
        return self._of(version, slice) / "windows" / f"{_as_name(window_id)}.profile"

    def _window(self, path: Path) -> bytes | None:
        found = _read(path) if path.exists() else None
        return None if found is None else found.profile

    def _of(self, version: str, slice: str) -> Path:
        return self._folder / f"version={_as_name(str(version))}" / f"slice={_as_name(slice)}"

    def _folders(self) -> list[Path]:
        return sorted(self._folder.glob("version=*/slice=*"))

    def _expired(self) -> pd.Timestamp | None:
        path = self._folder / "expired"
        return pd.Timestamp(path.read_text()) if path.exists() else None

    def _locked(self) -> AbstractContextManager[None]:
        return one_at_a_time(self._folder / ".lock")


def _bring_up_to_date(path: Path, rows: pd.DataFrame, profile: Callable[[pd.DataFrame], bytes], schema: str) -> int:
    """How many of `rows`, all of this hour or day, were not counted before; afterwards the file counts them."""
    stored = _read(path) if path.exists() else None
    if stored is None:
        _write(path, _Stretch(schema, _count(rows), profile(rows)))
        return len(rows)
    is_new = _after_watermarks(rows, stored.hours)
    known = _hours(rows[~is_new]).value_counts().to_dict()
    surplus = sum(max(0, known.get(hour, 0) - merged.rows) for hour, merged in stored.hours.items())
    are_all_known = all(known.get(hour, 0) >= merged.rows for hour, merged in stored.hours.items())
    if are_all_known and (surplus or stored.schema != schema):
        _write(path, _Stretch(schema, _count(rows), profile(rows)))
        return surplus + int(is_new.sum())
    if surplus:
        log.warning("%s: %d rows became visible late and cannot be told from those that have expired", path, surplus)
    new = rows[is_new]
    if len(new):
        hours = {**stored.hours}
        for hour, more in _count(new).items():
            hours[hour] = replace(more, rows=more.rows + hours[hour].rows) if hour in hours else more
        _write(path, replace(stored, hours=hours, profile=merge_profiles([stored.profile, profile(new)])))
    return len(new)


def _after_watermarks(rows: pd.DataFrame, hours: Mapping[str, _Merged]) -> pd.Series:
    """Which rows come after the newest one that their hour has counted, in the order of capture."""
    names = _hours(rows)
    newest = names.map({hour: pd.Timestamp(merged.served_at) for hour, merged in hours.items()})
    newest_id = names.map({hour: merged.prediction_id for hour, merged in hours.items()})
    is_after = rows["served_at"] > newest
    is_tie = (rows["served_at"] == newest) & (
        rows["prediction_id"].astype(object) > newest_id.fillna("").astype(object)
    )
    return is_after | is_tie | newest.isna()


def _count(rows: pd.DataFrame) -> dict[str, _Merged]:
    """The rows of each hour and the newest of them."""
    counted = {}
    for hour, of_hour in rows.groupby(_hours(rows)):
        served_at = of_hour["served_at"].max()
        newest = of_hour.loc[of_hour["served_at"] == served_at, "prediction_id"].max()
        counted[str(hour)] = _Merged(len(of_hour), served_at.isoformat(), str(newest))
    return counted


def _hours(rows: pd.DataFrame) -> pd.Series:
    """The ISO name of each row's hour."""
    hours = rows["event_time"].dt.floor("h")
    return hours.map({hour: hour.isoformat()[:13] for hour in hours.unique()}).astype(object)


def _roll_up_day(path: Path, hours: list[Path]) -> int:
    """1 if the day was made from its hours, 0 if a killed roll-up had made it; the hours are gone in both cases.

    0 too if an hour was unreadable: it is put aside, and the others stay for the next time.
    """
    is_made = path.exists()
    if not is_made:
        stretches = [stretch for hour in hours if (stretch := _read(hour)) is not None]
        if len(stretches) < len(hours):
            return 0
        counted = {name: merged for stretch in stretches for name, merged in stretch.hours.items()}
        schema = "+".join(sorted({stretch.schema for stretch in stretches}))
        _write(path, _Stretch(schema, counted, merge_profiles([stretch.profile for stretch in stretches])))
    for hour in hours:
        hour.unlink()
    return int(not is_made)


def _files(folder: Path) -> list[Path]:
    """The profiles in `folder`, and those that were put aside."""
    return sorted([*folder.glob("*.profile"), *folder.glob("*.unreadable")])


def _current_stretches(folder: Path) -> Iterator[Path]:
    """The hours and days in order of time, without the hours whose day is there too."""
    for path in sorted(folder.glob("*.profile")):
        if "T" not in path.stem or not (folder / f"{path.stem[:10]}.profile").exists():
            yield path


def _begin(path: Path) -> pd.Timestamp:
    return pd.Timestamp(path.stem)


def _read(path: Path) -> _Stretch | None:
    """What the file holds; None if it is not what was written, and then it is put aside."""
    header, _, profile = path.read_bytes().partition(b"\n")
    try:
        found = json.loads(header)
        if found["sha256"] == _digest(profile):
            hours = {hour: _Merged(**merged) for hour, merged in found["hours"].items()}
            return _Stretch(found["schema"], hours, profile)
    except (ValueError, KeyError, TypeError):
        pass  # no header of ours; said below
    aside = path.with_suffix(".unreadable")
    path.replace(aside)
    log.error("%s is not what was written (a broken disk?); it is now %s, and made anew from rows", path, aside.name)
    return None


def _write(path: Path, stretch: _Stretch) -> None:
    hours = {hour: asdict(merged) for hour, merged in stretch.hours.items()}
    header = {"schema": stretch.schema, "hours": hours, "sha256": _digest(stretch.profile)}
    _replace(path, json.dumps(header).encode() + b"\n" + stretch.profile)


def _digest(profile: bytes) -> str:
    return hashlib.sha256(profile).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Afterwards the file holds `data`, or what it held before. Under the lock one draft a file is enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _as_name(text: str) -> str:
    """A file name for any text: two texts never share one."""
    safe = quote(text, safe="", errors="surrogatepass")
    if len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[: _LONGEST_NAME // 2]}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _utc(moment: datetime) -> pd.Timestamp:
    """Naive UTC."""
    time = pd.Timestamp(moment)
    return time if time.tzinfo is None else time.tz_convert("UTC").tz_localize(None)
