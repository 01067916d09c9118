"""Two-sample statistics on summaries: an effect, a p-value for rows that may depend on each other, and a dispersion.

A window of n rows with design effect φ is worth n / φ independent ones (Kish 1965, 8.2): every p-value takes φ. The
dispersion of a statistic is its square over what independent rows would give on average; φ is calibrated with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy import stats

from everloop.domain.summaries import ColumnSummary

Signal = Literal["distribution", "nulls", "unseen", "infinite"]
KOLMOGOROV_SQUARE = float(np.pi**2 / 12)  # the mean of K² under Kolmogorov's law
_KOLMOGOROV_FREEDOM = 5.0  # K² / E[K²] has the variance of a chi-squared over its 5 degrees of freedom
_RARE = 5  # expected count under which categories are pooled (Cochran 1954)
_COARSE = 0.02  # a value that holds more of the rows than this makes a distribution function a coarse staircase


class Comparison(Protocol):
    """One statistic of one column of two profiles, and how far apart it says they are."""

    @property
    def signal(self) -> Signal:
        """What it watches."""

    @property
    def statistic(self) -> str:
        """The name of the test."""

    @property
    def effect(self) -> float:
        """0 to 1, in units of shares."""

    def p_value(self, design_effect: float = 1.0) -> float:
        """The probability of such a statistic or a larger one, if nothing changed and n rows are worth n / design_effect."""

    def dispersion(self) -> tuple[float, float]:
        """A sum of squares with mean φ·f, and its degrees of freedom f; both 0 if the data say nothing about φ."""


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """The largest distance of two distribution functions; p-value with n_eff = nN / (n + N) (Smirnov 1948).

    On values that repeat, Kolmogorov's law is an upper bound (Noether 1963); `null_mean` is the mean of n_eff·D² there.
    """

    effect: float
    effective_rows: float
    null_mean: float = KOLMOGOROV_SQUARE
    signal: Signal = "distribution"
    statistic: str = "Kolmogorov-Smirnov"

    def p_value(self, design_effect: float = 1.0) -> float:
        """The tail of Kolmogorov's law."""
        return float(stats.kstwobign.sf(self.effect * np.sqrt(self.effective_rows / design_effect)))

    def dispersion(self) -> tuple[float, float]:
        """n_eff·D² over its mean, as a sum of 5 squares."""
        return _KOLMOGOROV_FREEDOM * self.effect**2 * self.effective_rows / self.null_mean, _KOLMOGOROV_FREEDOM


@dataclass(frozen=True)
class ChiSquared:
    """The total variation distance of two category counts; p-value of Pearson's chi-squared on counts / φ (Rao & Scott 1981).

    Categories too rare for the approximation are pooled; what is still too rare then is tested by the tail of its share.
    """

    effect: float
    reference: np.ndarray
    window: np.ndarray
    signal: Signal = "distribution"
    statistic: str = "chi-squared"

    def p_value(self, design_effect: float = 1.0) -> float:
        """The tail of chi-squared over the common categories, doubled against that of the rare ones where both are tested."""
        reference, window, rare = self._pooled(design_effect)
        p_value = float(stats.chi2.sf(*_pearson(reference, window)))
        if not rare.any():
            return p_value
        return min(1.0, 2 * min(p_value, self._share_of(rare).p_value(design_effect)))

    def dispersion(self) -> tuple[float, float]:
        """Pearson's statistic and its degrees of freedom, the share of the rare categories counted as one more."""
        reference, window, rare = self._pooled(1.0)
        statistic, freedom = _pearson(reference, window) if len(reference) > 1 else (0.0, 0.0)
        of_rare, more = self._share_of(rare).dispersion() if rare.any() else (0.0, 0.0)
        return statistic + of_rare, freedom + more

    def _share_of(self, categories: np.ndarray) -> ShareRise:
        hits, known = self.window[categories].sum(), self.reference[categories].sum()
        return ShareRise(known, self.reference.sum(), hits, self.window.sum(), signal=self.signal)

    def _pooled(self, design_effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Effective counts with the rare categories as one, and a mask of those that are too rare even together."""
        reference, window = self.reference / design_effect, self.window / design_effect
        expected = (reference + window) * window.sum() / (reference.sum() + window.sum())
        rare = expected < _RARE
        if expected[rare].sum() < _RARE:
            return reference[~rare], window[~rare], rare
        pooled = [np.append(counts[~rare], counts[rare].sum()) for counts in (reference, window)]
        return pooled[0], pooled[1], np.zeros_like(rare)


@dataclass(frozen=True)
class ShareRise:
    """How much a share rose; p-value of so many hits or more under the beta-binomial predictive of the reference.

    Jeffreys prior: Beta(1/2, 1/2) (Gelman et al., Bayesian Data Analysis, 3rd ed., 2.4). Of dependent rows, hits / φ of
    n / φ are counted, rounded down.
    """

    reference_hits: float
    reference_n: float
    hits: float
    n: float
    signal: Signal
    statistic: str = "beta-binomial"

    @property
    def effect(self) -> float:
        """The rise of the share, 0 if it fell."""
        return float(max(self.hits / self.n - self.reference_hits / self.reference_n, 0.0))

    def p_value(self, design_effect: float = 1.0) -> float:
        """The tail of the beta-binomial."""
        a = self.reference_hits / design_effect + 0.5
        b = (self.reference_n - self.reference_hits) / design_effect + 0.5
        hits, n = np.floor(self.hits / design_effect), np.ceil(self.n / design_effect)
        return float(stats.betabinom.sf(hits - 1, n, a, b))

    def dispersion(self) -> tuple[float, float]:
        """The squared difference of the shares over its variance if rows were independent (Pearson)."""
        share = (self.hits + self.reference_hits) / (self.n + self.reference_n)
        if not 0 < share < 1:
            return 0.0, 0.0
        difference = self.hits / self.n - self.reference_hits / self.reference_n
        return float(difference**2 / (share * (1 - share) * (1 / self.n + 1 / self.reference_n))), 1.0


def compare_columns(
    reference: ColumnSummary, window: ColumnSummary, *, null_mean: float = KOLMOGOROV_SQUARE
) -> list[Comparison]:
    """Every comparison that both summaries allow."""
    found: list[Comparison] = []
    if not reference.n or not window.n:
        return found
    found.append(ShareRise(reference.nulls, reference.n, window.nulls, window.n, "nulls"))
    if not reference.present or not window.present:
        return found
    if reference.categories is not None and window.categories is not None:
        found += _compare_categories(reference.categories, window.categories)
    elif reference.cdf is not None or window.cdf is not None:
        found.append(ShareRise(reference.infinite, reference.present, window.infinite, window.present, "infinite"))
        if reference.cdf is not None and window.cdf is not None:
            found.append(kolmogorov_smirnov(reference, window, null_mean=null_mean))
    return found


def kolmogorov_smirnov(
    reference: ColumnSummary, window: ColumnSummary, *, null_mean: float = KOLMOGOROV_SQUARE
) -> KolmogorovSmirnov:
    """The comparison of the distribution functions of the finite values of both."""
    assert reference.cdf is not None
    assert window.cdf is not None
    assert reference.support is not None
    assert window.support is not None
    points = np.union1d(reference.support, window.support)
    distance = float(np.max(np.abs(reference.cdf(points) - window.cdf(points))))
    known, n = reference.present - reference.infinite, window.present - window.infinite
    return KolmogorovSmirnov(distance, known * n / (known + n), null_mean)


def chi_squared(reference: Mapping[str, int], window: Mapping[str, int]) -> ChiSquared:
    """The comparison of two category counts."""
    names = sorted(set(reference) | set(window))
    counts = np.array([[of.get(name, 0) for name in names] for of in (reference, window)], dtype=float)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return ChiSquared(float(np.abs(shares[0] - shares[1]).sum() / 2), counts[0], counts[1])


def mean_square(column: ColumnSummary) -> float:
    """The mean of n·D² for n independent rows of `column`: π²/12, less where few values hold most of the rows.

    There the supremum of the Brownian bridge is taken over the steps of the distribution function only (Noether 1963);
    its mean is simulated, 1,000 bridges, always the same ones.
    """
    if column.cdf is None or column.support is None:
        return KOLMOGOROV_SQUARE
    steps = np.diff(column.cdf(column.support), prepend=0.0)
    steps = steps[steps > 0]
    if len(steps) < 2 or steps.max() < _COARSE:
        return KOLMOGOROV_SQUARE
    walks = np.cumsum(np.random.default_rng(0).standard_normal((1000, len(steps))) * np.sqrt(steps), axis=1)
    bridges = walks - np.cumsum(steps) / steps.sum() * walks[:, -1:]
    return float(min(KOLMOGOROV_SQUARE, np.mean(np.abs(bridges).max(axis=1) ** 2)))


def _compare_categories(reference: Mapping[str, int], window: Mapping[str, int]) -> list[Comparison]:
    """Unseen categories, and the mix of the others.

    The share of categories the reference has not seen is expected to be that of those it saw once (Good 1953).
    """
    known = {name: count for name, count in window.items() if name in reference}
    total, singles = sum(window.values()), sum(count == 1 for count in reference.values())
    found: list[Comparison] = [
        ShareRise(singles, sum(reference.values()), total - sum(known.values()), total, "unseen")
    ]
    if known:
        found.append(chi_squared(reference, known))
    return found


def _pearson(reference: np.ndarray, window: np.ndarray) -> tuple[float, float]:
    """Pearson's chi-squared statistic of two rows of counts and its degrees of freedom; (0, 1) where there is no table."""
    if len(reference) < 2 or not reference.any() or not window.any():
        return 0.0, 1.0
    counts = np.vstack([reference, window])
    expected = counts.sum(axis=0) * counts.sum(axis=1, keepdims=True) / counts.sum()
    return float(((counts - expected) ** 2 / expected).sum()), float(len(reference) - 1)
