"""The monitor as the benchmarks of its statistics run it: a reference, windows in turn, and the real policy's decisions.

Profiles are the real sketches, decisions those of everloop.domain.retraining with drift set to retrain as well. Windows lie
a day apart; whatever retrains starts a new version, whose history is empty and whose loss is validated on new rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from benchmarks.no_change import Pool, draw_window
from everloop.adapters.profiles import merge_profiles, profile_rows, summarize_profile
from everloop.domain.calibration import Calibration, block_bounds, calibrate
from everloop.domain.decay import slow_decay
from everloop.domain.decision import Past, RetrainingDecision, spell_of
from everloop.domain.drift import compare_profiles
from everloop.domain.evidence import Evidence, disjoint
from everloop.domain.metrics import LossSummary, summarize
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import score_window
from everloop.domain.quality import judge_quality
from everloop.domain.retraining import decide
from everloop.domain.schema import RowSchema
from everloop.domain.spec import PREDICTION, Gates
from everloop.domain.summaries import ProfileSummary
from everloop.domain.windows import Window

POLICY = MonitorSpec(on_drift="retrain", on_growth=0, cooldown="1h", min_rows=200)
LEAST_BLOCKS, LEAST_ROWS = 20, 20_000
HOLDOUTS = (Gates.model_fields["holdout_rows"].default, 5000)  # the shipped default, and one of a cautious spec
_REMEMBERED = 100  # windows; the weight of older ones in slow decay is below 1e-9


@dataclass(frozen=True)
class Reference:
    """What a version is watched against, for some columns: the profile of its rows, the calibration, the validated loss."""

    whole: ProfileSummary
    calibration: Calibration
    baseline: LossSummary
    schema: RowSchema = field(default_factory=lambda: RowSchema(features=()))


def draw_reference(pool: Pool, rows: int, rng: np.random.Generator, *, autocorrelated: bool) -> list[np.ndarray]:
    """The blocks of a reference for windows of `rows` rows: at least 20, and at least 20,000 rows together."""
    count = max(LEAST_BLOCKS, -(-LEAST_ROWS // rows))
    return [draw_window(pool, rows, rng, autocorrelated=autocorrelated) for _ in range(count)]


def draw_baseline(
    pool: Pool, rows: int, rng: np.random.Generator, *, autocorrelated: bool, holdout: int = HOLDOUTS[0]
) -> LossSummary:
    """The loss that the version was validated with, on `holdout` rows of the same stream, in stretches of `rows`."""
    rows = min(rows, holdout)
    parts = [draw_window(pool, rows, rng, autocorrelated=autocorrelated) for _ in range(holdout // rows)]
    return summarize(pool.losses[np.concatenate(parts)])


def learn(
    pool: Pool, blocks: Sequence[np.ndarray], baseline: LossSummary, columns: Sequence[Sequence[str]]
) -> list[Reference]:
    """One reference for each list of columns, calibrated on the blocks that a training would choose."""
    rows = len(blocks[0])
    profiles = [profile(pool, block) for block in blocks]
    whole = summarize_profile(merge_profiles(profiles))
    chosen = [start // rows for start, _ in block_bounds(rows * len(blocks), window_rows=rows)]
    summaries = [summarize_profile(profiles[position]) for position in chosen]
    return [
        Reference(
            only(whole, names),
            calibrate(
                [only(block, names) for block in summaries],
                only(whole, names),
                false_alarms=POLICY.false_alarms,
                recent=POLICY.recent,
            ),
            baseline,
            RowSchema(features=tuple(feature for feature in pool.schema.features if feature.name in names)),
        )
        for names in columns
    ]


def profile(pool: Pool, rows: np.ndarray, frame: pd.DataFrame | None = None) -> bytes:
    """The real profile of the pool's rows at `rows`, or of `frame` in their place, and of their predictions."""
    numbers = RowSchema(features=pool.schema.features)  # of a classifier, the probabilities are watched
    return profile_rows(pool.frame.iloc[rows] if frame is None else frame, numbers, predictions=pool.predictions[rows])


def only(summary: ProfileSummary, names: Sequence[str]) -> ProfileSummary:
    """`summary` as if the rows had only the columns `names`, and the prediction."""
    kept = {name: column for name, column in summary.columns.items() if name in names or name == PREDICTION}
    return ProfileSummary(summary.rows, kept)


class Watch:
    """One version after another, watched window by window."""

    def __init__(
        self, reference: Reference, policy: MonitorSpec = POLICY, *, validate: Callable[[], LossSummary] | None = None
    ) -> None:
        self.reference, self.policy, self.validate = reference, policy, validate
        self.baseline = reference.baseline
        self.version, self.seen = 1, 0
        self.earlier: list[RetrainingDecision] = []

    def judge(self, summary: ProfileSummary, losses: np.ndarray | None) -> RetrainingDecision:
        """The decision about the next window; after one that retrains, the next version is watched."""
        decision = decide(
            "bench",
            str(self.version),
            self._next_window(summary.rows),
            self._evidence(summary, losses),
            policy=self.policy,
            past=Past(self.earlier, [decision for decision in self.earlier if decision.is_fired]),
        )
        if decision.is_fired:
            self.version += 1
            self.baseline = self.validate() if self.validate else self.baseline
            decision = decision.model_copy(update={"outcome": "promoted", "trained": True, "released": True})
        self.earlier = [*self.earlier[-_REMEMBERED:], decision]
        return decision

    def _evidence(self, summary: ProfileSummary, losses: np.ndarray | None) -> Evidence:
        drift = compare_profiles(
            self.reference.whole,
            summary,
            min_rows=self.policy.min_rows,
            false_alarms=self.policy.false_alarms,
            calibration=self.reference.calibration,
        )
        known = np.empty(0) if losses is None else losses
        of_version = disjoint(spell_of(str(self.version), self.earlier), 0)
        performance = score_window(
            known, self.baseline, rows=summary.rows, metric="mae", policy=self.policy, before=of_version
        )
        return Evidence(
            drift=drift,
            drift_persistence=self.reference.calibration.persistence_needed,
            performance=performance,
            decay=slow_decay([*of_version, performance], policy=self.policy),
            quality=judge_quality(
                self.reference.whole,
                summary,
                self.reference.schema,
                false_alarms=self.policy.false_alarms,
                calibration=self.reference.calibration,
            ),
        )

    def _next_window(self, rows: int) -> Window:
        start = datetime(2024, 1, 1) + timedelta(days=self.seen)
        self.seen += 1
        return Window(
            id=f"w{self.seen:06}",
            start=start.isoformat(),
            end=(start + timedelta(days=1)).isoformat(),
            rows=rows,
        )


def is_alarmed(decision: RetrainingDecision) -> bool:
    """Whether the window's own verdict is drift, degraded, decaying or broken, before persistence."""
    decaying = decision.decay is not None and decision.decay.verdict == "decaying"
    alarmed = decision.drift.verdict == "drift" or decision.performance.verdict == "degraded"
    return alarmed or decaying or is_broken(decision)


def is_broken(decision: RetrainingDecision) -> bool:
    """Whether the data of the window are called broken."""
    return decision.quality is not None and decision.quality.verdict == "fail"
