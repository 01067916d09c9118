"""The files of a version's reference: its facts, its profile, and the profiles of its slices.

reference/reference.json   reference/profile.bin   reference/slices/000.bin …
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from everloop.domain.reference import MonitoringReference

FOLDER = "reference"
_FACTS, _PROFILE, _SLICES = "reference.json", "profile.bin", "slices"


@dataclass(frozen=True)
class Reference:
    """What the windows of a version are compared with; `slices` are the profiles of `facts.slices`, in the same order."""

    facts: MonitoringReference
    profile: bytes
    slices: Sequence[bytes] = ()


def save_reference(reference: Reference, folder: Path) -> None:
    """Afterwards `folder` holds the files of `reference`."""
    (folder / _SLICES).mkdir(parents=True, exist_ok=True)
    (folder / _FACTS).write_text(reference.facts.model_dump_json(), encoding="utf-8")
    (folder / _PROFILE).write_bytes(reference.profile)
    for position, profile in enumerate(reference.slices):
        (folder / _SLICES / f"{position:03d}.bin").write_bytes(profile)


def load_reference(folder: Path) -> Reference:
    """The reference whose files are in `folder`; a version of an earlier Everloop has a profile and no facts."""
    facts = folder / _FACTS
    return Reference(
        facts=MonitoringReference.model_validate_json(facts.read_bytes()) if facts.is_file() else MonitoringReference(),
        profile=(folder / _PROFILE).read_bytes(),
        slices=[path.read_bytes() for path in sorted((folder / _SLICES).glob("*.bin"))],
    )
