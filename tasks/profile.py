"""Profile: a window, and each of its watched slices, as whylogs sketches that are made once and kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from everloop.adapters.profile_store import ProfileStore
from everloop.adapters.profiles import profile_rows
from everloop.domain.frames import conform
from everloop.domain.monitor_spec import RowWindow
from everloop.domain.spec import ModelSpec
from everloop.domain.time_parts import time_parts
from everloop.domain.windows import Window
from everloop.settings import settings
from tasks.step import step
from tasks.watch import Watched


@dataclass(frozen=True)
class WindowProfiles:
    """The serialized profiles of one window: of all its rows, and of each slice of the reference, None if it has no rows."""

    whole: bytes | None
    slices: tuple[bytes | None, ...] = ()


@step(retries=1)
def profile_window(spec: ModelSpec, watched: Watched, window: Window, rows: pd.DataFrame) -> WindowProfiles:
    """The profiles of the champion's `rows` of one window."""
    store = ProfileStore(settings().profiles / spec.name)
    whole = _kept(store, spec, watched, window, rows, "")
    slices = [
        _kept(store, spec, watched, window, rows[mask], found.name)
        for found, mask in zip(watched.facts.slices, slice_masks(watched, rows), strict=True)
    ]
    return WindowProfiles(whole, tuple(slices))


def slice_masks(watched: Watched, rows: pd.DataFrame) -> list[np.ndarray]:
    """Which of the captured `rows` belong to each slice of the reference, (n,) each."""
    if not watched.facts.slices:
        return []
    canonical = conform(features_of(watched, rows), watched.manifest.row_schema)
    return [(canonical[found.column] == found.value).to_numpy() for found in watched.facts.slices]


def features_of(watched: Watched, rows: pd.DataFrame) -> pd.DataFrame:
    """The features of captured rows under their own names."""
    names = watched.manifest.row_schema.names
    return rows[[f"features.{name}" for name in names]].set_axis(list(names), axis=1)


def _kept(
    store: ProfileStore, spec: ModelSpec, watched: Watched, window: Window, rows: pd.DataFrame, name: str
) -> bytes | None:
    """The profile of the window's rows: the one that is kept, brought up to date with rows that came late."""
    version = watched.version.number

    def profile(some: pd.DataFrame) -> bytes:
        return _profile(spec, watched, some)

    if isinstance(spec.monitor.window, RowWindow):
        found = store.window(version, window.id, slice=name)
        if found is None and len(rows):
            found = profile(rows)
            store.put_window(version, window.id, found, slice=name)
        return found
    store.update(version, rows, profile, slice=name, schema=_layout(spec, watched))
    found = store.between(version, pd.Timestamp(window.start), pd.Timestamp(window.end), slice=name)
    if found is None and len(rows):  # its day is one profile by now, and the window is shorter than that
        return profile(rows)
    return found


def _layout(spec: ModelSpec, watched: Watched) -> str:
    """What a profile speaks of: one that was made otherwise is made anew."""
    return ",".join((*watched.manifest.row_schema.names, *spec.monitor.time_parts))


def _profile(spec: ModelSpec, watched: Watched, rows: pd.DataFrame) -> bytes:
    parts = spec.monitor.time_parts
    return profile_rows(
        features_of(watched, rows),
        watched.manifest.row_schema,
        predictions=rows["prediction"].to_numpy(),
        extra=time_parts(rows["event_time"], parts, seen=rows["served_at"]) if parts else None,
    )
