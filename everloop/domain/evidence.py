"""Everything that was seen of one window: what a decision rests on."""

from __future__ import annotations

from collections.abc import Sequence

from everloop.domain.decay import DecayReport
from everloop.domain.dependencies import DependencyReport
from everloop.domain.drift import DriftReport
from everloop.domain.estimate import EstimatedPerformance
from everloop.domain.performance import PerformanceReport
from everloop.domain.quality import QualityReport
from everloop.domain.ranking import RankReport
from everloop.domain.spec_values import Frozen
from everloop.domain.usage import UsageReport


class Growth(Frozen):
    """Labelled rows that exist now, how many there were at the last training, and how many the champion was fitted on."""

    labelled_rows: int
    at_last_training: int
    fitted_rows: int

    @property
    def share(self) -> float:
        """The labelled rows that are new since the last training, as a share of those that the champion was fitted on."""
        return (self.labelled_rows - self.at_last_training) / self.fitted_rows if self.fitted_rows else 0.0


class SliceEvidence(Frozen):
    """Drift and performance of the rows of a window that share one value of one column.

    `drift_persistence` is in how many windows its drift must stand at least, as calibrated on its training data.
    """

    column: str
    value: str
    rows: int
    drift: DriftReport
    performance: PerformanceReport
    drift_persistence: int = 1

    @property
    def name(self) -> str:
        """The slice as a person writes it: 'season=1'."""
        return f"{self.column}={self.value}"


class Evidence(Frozen):
    """What was seen of one window. None: it was not looked at.

    `drift_persistence` is in how many windows drift must stand at least, as calibrated on the training data;
    `merged_windows` counts the windows before this one whose rows were added because it had too few; `labelled_rows` are those
    of this window alone; `age_seconds` is the median time from a row's event to its prediction, where the spec asks for `age`.
    """

    drift: DriftReport
    performance: PerformanceReport
    drift_persistence: int = 1
    decay: DecayReport | None = None
    growth: Growth | None = None
    quality: QualityReport | None = None
    dependencies: DependencyReport | None = None
    slices: tuple[SliceEvidence, ...] = ()
    estimate: EstimatedPerformance | None = None
    ranking: RankReport | None = None
    usage: UsageReport | None = None
    merged_windows: int = 0
    labelled_rows: int = 0
    age_seconds: float | None = None


def disjoint(earlier: Sequence[Evidence], merged: int) -> list[PerformanceReport]:
    """The performance reports of one version's `earlier` windows, oldest first, that share no rows by having been merged.

    `merged` is how many of them were merged into the window that is judged; those share its rows.
    """
    found, skipped = list[PerformanceReport](), merged
    for evidence in reversed(earlier):
        if skipped:
            skipped -= 1
            continue
        found.append(evidence.performance)
        skipped = evidence.merged_windows
    return found[::-1]
