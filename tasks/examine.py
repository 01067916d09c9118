"""Examine: everything that is seen of one window, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from everloop.adapters.profiles import merge_profiles, summarize_profile
from everloop.adapters.registry import Version
from everloop.domain.calibration import Calibration
from everloop.domain.decay import slow_decay
from everloop.domain.decision import Past, RetrainingDecision, decision_id, spell_of
from everloop.domain.dependencies import SourceState
from everloop.domain.evidence import Evidence, SliceEvidence, disjoint
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import PerformanceReport
from everloop.domain.reference import SliceReference
from everloop.domain.spec import ModelSpec
from everloop.domain.summaries import ProfileSummary
from everloop.domain.windows import Window
from tasks.collect import Collected, is_open
from tasks.compare import compare, compare_slices, inspect
from tasks.measure_growth import labelled_before, measure_growth
from tasks.observe import Surroundings
from tasks.profile import WindowProfiles, profile_window, slice_masks
from tasks.score import estimate, rank, score
from tasks.watch import Watched
from tasks.wiring import decisions

EMPTY = ProfileSummary(rows=0)


@dataclass(frozen=True)
class Filled:
    """The champion's rows of a window, and the windows before it that were added, newest first, because they are few."""

    rows: pd.DataFrame
    before: tuple[tuple[Window, pd.DataFrame], ...] = ()

    @property
    def all_rows(self) -> pd.DataFrame:
        """The rows of the window and of those before it, in the order of capture."""
        return pd.concat([*(rows for _, rows in reversed(self.before)), self.rows]) if self.before else self.rows


@dataclass(frozen=True)
class Examined:
    """The evidence, and the profile of all rows it rests on."""

    evidence: Evidence
    profile: ProfileSummary


def is_pending(
    window: Window, rows: pd.DataFrame, champion: Version, known: Mapping[str, RetrainingDecision], spec: ModelSpec
) -> bool:
    """True if the window is not decided, or its decision was not said, or labels or rows that came since may change it.

    One that was decided so long ago that it is not among the `known` decisions is left as it is.
    """
    name = decision_id(spec.name, window)
    decision = known.get(name)
    if decision is None:
        return decisions().find(name) is None
    if decision.version != champion.number:
        return False
    if decision.has_missed(window):
        return True
    if not is_open(decision, spec.monitor):
        return False
    mine = rows[rows["model_version"] == champion.number]
    changes = decision.may_change(
        int(mine["label"].notna().sum()), rows=len(mine), min_label_coverage=spec.monitor.min_label_coverage
    )
    return not decision.published or changes


def goes_by_another(
    decision: RetrainingDecision,
    window: Window,
    current: Sequence[RetrainingDecision],
    champion: Version,
    spec: ModelSpec,
) -> bool:
    """True if one of the `current` decisions before this one, in the order of windows, does not say any more what it went by."""
    recent = spec.monitor.recent
    if decision.version != champion.number or not decision.is_overtaken(current, recent=recent):
        return False
    # what was read may be less than what it goes by: the store has the last word
    return decision.is_overtaken(decisions().past(spec.name, window).earlier, recent=recent)


def fill(window: Window, rows: pd.DataFrame, found: Collected, spec: ModelSpec, champion: Version) -> Filled:
    """The champion's rows of `window`; with fewer than `min_rows`, those of the windows before it are added until enough."""
    mine = rows[rows["model_version"] == champion.number]
    position = [known.id for known, _ in found.windows].index(window.id)
    total, before = len(mine), []
    for earlier, others in reversed(found.windows[:position]):
        if total >= spec.monitor.min_rows or not len(mine):
            break
        theirs = others[others["model_version"] == champion.number]
        if theirs.empty:
            break
        before.append((earlier, theirs))
        total += len(theirs)
    return Filled(mine, tuple(before))


def examine(
    spec: ModelSpec,
    watched: Watched,
    window: Window,
    filled: Filled,
    surroundings: Surroundings | None,
    source: SourceState,
    past: Past,
) -> Examined:
    """What was seen of `window`; the `surroundings` of this moment belong to the newest window only."""
    parts = [profile_window(spec, watched, *part) for part in ((window, filled.rows), *filled.before)]
    profile, slices = _merged(parts)
    rows = filled.all_rows
    mine = disjoint(spell_of(watched.version.number, past.earlier), len(filled.before))
    performance, labelled = score(spec.monitor, watched, rows, mine), int(filled.rows["label"].notna().sum())
    evidence = Evidence(
        drift=compare(spec, watched, profile),
        performance=performance,
        drift_persistence=_persistence(watched.facts.calibration, spec.monitor),
        decay=slow_decay([*mine, performance], policy=spec.monitor),
        growth=measure_growth(spec, watched, source, labelled + labelled_before(spec, watched, window), past.fired),
        quality=inspect(spec, watched, profile, rows, surroundings.at if surroundings else None),
        dependencies=surroundings.dependencies if surroundings else None,
        slices=_slices(spec, watched, rows, slices),
        estimate=estimate(watched, rows),
        ranking=rank(watched, rows),
        usage=surroundings.usage if surroundings else None,
        merged_windows=len(filled.before),
        labelled_rows=labelled,
        age_seconds=age.quantile(0.5) if (age := profile.columns.get("time.age")) else None,
    )
    return Examined(evidence, profile)


def _slices(
    spec: ModelSpec, watched: Watched, rows: pd.DataFrame, profiles: Sequence[ProfileSummary]
) -> tuple[SliceEvidence, ...]:
    if not watched.facts.slices:
        return ()
    drifts, masks = compare_slices(spec, watched, profiles), slice_masks(watched, rows)
    return tuple(
        SliceEvidence(
            column=found.column,
            value=found.value,
            rows=int(mask.sum()),
            drift=drift,
            performance=_score_slice(spec, watched, found, rows[mask]),
            drift_persistence=_persistence(found.calibration, spec.monitor),
        )
        for found, drift, mask in zip(watched.facts.slices, drifts, masks, strict=True)
    )


def _score_slice(spec: ModelSpec, watched: Watched, found: SliceReference, rows: pd.DataFrame) -> PerformanceReport:
    if found.baseline is not None:
        share = spec.monitor.model_copy(update={"false_alarms": spec.monitor.false_alarms / len(watched.facts.slices)})
        return score(share, watched, rows, baseline=found.baseline)
    return PerformanceReport(
        verdict="undetermined",
        reason_code="too_few_rows",
        reason=f"the holdout had too few rows of {found.name} to say what its loss should be",
        rows=len(rows),
        labelled=int(rows["label"].notna().sum()),
    )


def _merged(parts: Sequence[WindowProfiles]) -> tuple[ProfileSummary, list[ProfileSummary]]:
    """The summaries of all rows, and of each slice, over the windows that were put together."""
    columns = zip(*(part.slices for part in parts), strict=True)
    return _sum([part.whole for part in parts]), [_sum(column) for column in columns]


def _sum(profiles: Sequence[bytes | None]) -> ProfileSummary:
    found = [profile for profile in profiles if profile is not None]
    if not found:
        return EMPTY
    return summarize_profile(found[0] if len(found) == 1 else merge_profiles(found))


def _persistence(calibration: Calibration | None, policy: MonitorSpec) -> int:
    return calibration.persistence_needed if calibration else policy.needed
