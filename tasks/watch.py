"""Watch: the live version with everything its windows are compared with."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from everloop.adapters.profiles import summarize_profile
from everloop.adapters.reference_files import FOLDER, load_reference
from everloop.adapters.registry import Version
from everloop.domain.manifest import Manifest
from everloop.domain.reference import MonitoringReference
from everloop.domain.summaries import ProfileSummary
from tasks.step import step
from tasks.wiring import registry


@dataclass(frozen=True)
class Watched:
    """A live version and its reference; `slices` are the profiles of `facts.slices`, in the same order."""

    version: Version
    manifest: Manifest
    facts: MonitoringReference
    profile: ProfileSummary
    slices: tuple[ProfileSummary, ...] = ()


@step(retries=2, retry_delay_seconds=2)
def watch(version: Version) -> Watched:
    """`version` as the monitor needs it."""
    with tempfile.TemporaryDirectory(prefix="everloop-reference-") as scratch:
        reference = load_reference(registry().artifact(version, FOLDER, Path(scratch)))
    return Watched(
        version=version,
        manifest=registry().manifest(version),
        facts=reference.facts,
        profile=summarize_profile(reference.profile),
        slices=tuple(summarize_profile(profile) for profile in reference.slices),
    )
