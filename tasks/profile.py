"""Profile: a window as whylogs sketches, and the reference they are compared with."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from everloop.adapters.profiles import profile_rows
from everloop.adapters.registry import Version
from everloop.adapters.tracking import REFERENCE_PROFILE
from everloop.domain.schema import RowSchema
from everloop.domain.spec import ModelSpec
from everloop.domain.windows import Window
from everloop.settings import settings
from tasks.step import step
from tasks.wiring import registry


@step
def profile_window(spec: ModelSpec, schema: RowSchema, window: Window, rows: pd.DataFrame) -> bytes:
    """The profile of the window's features and predictions; kept under `profiles/<model>/`."""
    features = rows[[f"features.{name}" for name in schema.names]].set_axis(schema.names, axis=1)
    profile = profile_rows(features, schema, predictions=rows["prediction"].to_numpy())
    path = settings().home / "profiles" / spec.name / f"{window.id}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(profile)
    return profile


@step(retries=2, retry_delay_seconds=2)
def reference_profile(version: Version) -> bytes:
    """The profile of the rows that `version` was fitted on."""
    with tempfile.TemporaryDirectory() as scratch:
        return registry().artifact(version, REFERENCE_PROFILE, Path(scratch)).read_bytes()
