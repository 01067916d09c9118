"""How well scores rank the rows of a binary window: ROC AUC and average precision, with bootstrap intervals.

Scores are sorted once. A resample is a vector of Poisson(1) weights, one a row (Hanley and MacGibbon 2006), and all that a
resample needs is a cumulative sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from everloop.domain.spec_values import Frozen

MIN_PER_CLASS = 10
_CHUNK = 100_000  # weights held at a time: they stay in the processor's cache
_EXACT = 2_000_000  # rows, of weights up to 8, whose sum float32 holds exactly


class RankReport(Frozen):
    """ROC AUC (0.5: no better than chance) and average precision (chance: the positive share), with percentile intervals."""

    verdict: Literal["ok", "undetermined"]
    reason: str
    positives: int
    negatives: int
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    average_precision: float | None = None
    average_precision_low: float | None = None
    average_precision_high: float | None = None


def rank_quality(
    truth_is_positive: np.ndarray,
    scores: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 200,
    confidence: float = 0.95,
) -> RankReport:
    """How `scores` (n,) rank the rows whose label is positive, `truth_is_positive` (n,), above the others.

    Rows whose score is no finite number are left out, and the reason says so. Fewer than ten rows of a class: undetermined.
    """
    truth, values = np.asarray(truth_is_positive, dtype=bool), np.asarray(scores, dtype=float)
    finite = np.isfinite(values)
    truth, values = truth[finite], values[finite]
    positives, negatives = int(truth.sum()), int((~truth).sum())
    left_out = f"; {int((~finite).sum()):,} rows without a finite score left out" if not finite.all() else ""
    if min(positives, negatives) < MIN_PER_CLASS:
        reason = (
            f"{positives:,} positive and {negatives:,} negative rows, {MIN_PER_CLASS} of each are required{left_out}"
        )
        return RankReport(verdict="undetermined", reason=reason, positives=positives, negatives=negatives)
    pairs = _Pairs.of(np.sort(values[truth]), np.sort(values[~truth]))
    auc, precision = (float(found[0]) for found in pairs.rank(np.ones((1, positives)), np.ones((1, negatives))))
    aucs, precisions = pairs.resample(seed=seed, resamples=resamples)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = (float(end) for end in np.nanquantile(aucs, tails))
    precision_low, precision_high = (float(end) for end in np.nanquantile(precisions, tails))
    return RankReport(
        verdict="ok",
        reason=f"AUC {auc:.3f} ({low:.3f} to {high:.3f}) over {positives:,} positive and {negatives:,} negative rows{left_out}",
        positives=positives,
        negatives=negatives,
        auc=auc,
        low=low,
        high=high,
        average_precision=precision,
        average_precision_low=precision_low,
        average_precision_high=precision_high,
    )


@dataclass(frozen=True)
class _Pairs:
    """Where each positive score, ascending, stands: how many negatives are below it, and at or below; positives below it."""

    below: np.ndarray
    upto: np.ndarray
    first: np.ndarray
    positives: int
    negatives: int

    @classmethod
    def of(cls, positive: np.ndarray, negative: np.ndarray) -> _Pairs:
        """The pairs of two ascending arrays of scores."""
        return cls(
            below=np.searchsorted(negative, positive, side="left"),
            upto=np.searchsorted(negative, positive, side="right"),
            first=np.searchsorted(positive, positive, side="left"),
            positives=len(positive),
            negatives=len(negative),
        )

    def resample(self, *, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
        """AUC and average precision of each resample, (resamples,) each."""
        rng = np.random.default_rng(seed)
        at_once = max(1, _CHUNK // (self.positives + self.negatives))
        found = []
        for done in range(0, resamples, at_once):
            b = min(at_once, resamples - done)
            found.append(self.rank(_poisson(rng, b, self.positives), _poisson(rng, b, self.negatives)))
        return np.concatenate([auc for auc, _ in found]), np.concatenate([precision for _, precision in found])

    def rank(self, positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUC and average precision, (b,) each, under weights (b, positives) and (b, negatives); NaN where a class weighs 0.

        A pair of equal scores counts half (Mann and Whitney 1947; Bamber 1975). Average precision is the sum over thresholds
        of the precision times the gain in recall (Manning et al. 2008, ch. 8).
        """
        positives_below, negatives_below = _cumulated(positive), _cumulated(negative)
        all_positive, all_negative = positives_below[:, -1:], negatives_below[:, -1:]
        below = np.take(negatives_below, self.below, axis=1)
        upto = np.take(negatives_below, self.upto, axis=1)
        true = all_positive - np.take(positives_below, self.first, axis=1)  # at or above each positive score
        share = true / np.maximum(true + all_negative - below, 1e-9)
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = _dot(positive, below + upto) / 2 / (all_positive * all_negative)[:, 0]
            precision = _dot(positive, share) / all_positive[:, 0]
        return auc, precision


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """The sums (b, n + 1) of the first 0, 1, ... n weights of each row."""
    sums = np.empty((len(weights), weights.shape[1] + 1), weights.dtype)
    sums[:, 0] = 0
    for row, into in zip(weights, sums, strict=True):
        np.cumsum(row, dtype=weights.dtype, out=into[1:])
    return sums


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", left, right, dtype=np.float64)


def _poisson(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Poisson(1) draws (rows, columns) by inversion of 16 random bits; the probabilities are exact to 2**-16."""
    weights = _INVERSE[rng.integers(0, 2**16, size=(rows, columns), dtype=np.uint16)]
    return weights if columns < _EXACT else weights.astype(float)


def _inverse_poisson() -> np.ndarray:
    """The Poisson(1) quantile of (i + 1/2) / 2**16 for every i."""
    probabilities = np.exp(-1) / np.cumprod(np.r_[1.0, np.arange(1.0, 12.0)])
    return np.searchsorted(np.cumsum(probabilities), (np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


_INVERSE = _inverse_poisson()
