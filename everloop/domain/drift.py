"""Drift of a window against the reference: significant after correction and large enough to matter.

A test alone fires on harmless jitter once windows are large; an effect alone fires on noise while they are small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy import stats

from everloop.domain.spec_values import Frozen
from everloop.domain.summaries import ColumnSummary, ProfileSummary

FAMILY_ALPHA = 0.01  # over all tests of a window, Bonferroni
FLOORS = {"distribution": 0.05, "nulls": 0.01, "unseen": 0.002}
_RARE = 5  # expected count under which categories are pooled (Cochran 1954)

Signal = Literal["distribution", "nulls", "unseen"]


class DriftTest(Frozen):
    """One test of one column: its p-value, its effect, the floor, and whether both say drift."""

    column: str
    signal: Signal
    statistic: str
    p_value: float
    effect: float
    floor: float
    is_drift: bool


class DriftReport(Frozen):
    """All tests of one window against the reference."""

    verdict: Literal["drift", "no drift", "undetermined"]
    reason: str
    alpha: float
    rows: int
    reference_rows: int
    tests: tuple[DriftTest, ...]

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that drifted, strongest effect first."""
        hits = sorted((test for test in self.tests if test.is_drift), key=lambda test: -test.effect)
        return tuple(dict.fromkeys(test.column for test in hits))


def compare_profiles(reference: ProfileSummary, window: ProfileSummary, *, min_rows: int) -> DriftReport:
    """Which columns of `window` drifted from `reference`; columns that only one of them has are left to the data check."""
    if window.rows < min_rows:
        reason = f"{window.rows:,} rows in the window, {min_rows:,} are required"
        return DriftReport(
            verdict="undetermined", reason=reason, alpha=0, rows=window.rows, reference_rows=reference.rows, tests=()
        )
    raw = [
        (name, *result)
        for name in reference.columns
        if name in window.columns
        for result in _test_column(reference.columns[name], window.columns[name])
    ]
    alpha = FAMILY_ALPHA / max(len(raw), 1)
    tests = tuple(
        DriftTest(
            column=name,
            signal=signal,
            statistic=statistic,
            p_value=p_value,
            effect=effect,
            floor=FLOORS[signal],
            is_drift=bool(p_value < alpha and effect >= FLOORS[signal]),
        )
        for name, signal, statistic, p_value, effect in raw
    )
    drifted = [test for test in tests if test.is_drift]
    count = len({test.column for test in drifted})
    return DriftReport(
        verdict="drift" if drifted else "no drift",
        reason=f"{count} of {len(reference.columns)} columns drifted ({len(tests)} tests, alpha {alpha:.1e} each)",
        alpha=alpha,
        rows=window.rows,
        reference_rows=reference.rows,
        tests=tests,
    )


def kolmogorov_smirnov(reference: ColumnSummary, window: ColumnSummary) -> tuple[float, float]:
    """The two-sample KS distance of two distribution functions and its p-value with n_eff = nN / (n + N) (Smirnov 1948)."""
    assert reference.cdf is not None
    assert window.cdf is not None
    assert reference.support is not None
    assert window.support is not None
    points = np.union1d(reference.support, window.support)
    distance = float(np.max(np.abs(reference.cdf(points) - window.cdf(points))))
    effective = reference.present * window.present / (reference.present + window.present)
    return distance, float(stats.kstwobign.sf(distance * np.sqrt(effective)))


def chi_squared(reference: Mapping[str, int], window: Mapping[str, int]) -> tuple[float, float]:
    """Total variation distance of two category counts and the p-value of Pearson's chi-squared test, rare ones pooled."""
    names = sorted(set(reference) | set(window))
    counts = np.array(
        [[reference.get(name, 0) for name in names], [window.get(name, 0) for name in names]], dtype=float
    )
    shares = counts / counts.sum(axis=1, keepdims=True)
    effect = float(np.abs(shares[0] - shares[1]).sum() / 2)
    expected = counts.sum(axis=0) * counts[1].sum() / counts.sum()
    rare = expected < _RARE
    if rare.sum() > 1:
        counts = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
    if counts.shape[1] < 2:
        return effect, 1.0
    return effect, float(stats.chi2_contingency(counts, correction=False).pvalue)


def share_rise(reference_hits: int, reference_n: int, window_hits: int, window_n: int) -> tuple[float, float]:
    """How much a share rose, and the probability of so many hits or more under the beta-binomial predictive of the reference.

    Jeffreys prior: Beta(1/2, 1/2) (Gelman et al., Bayesian Data Analysis, 3rd ed., 2.4).
    """
    effect = window_hits / window_n - reference_hits / reference_n
    a, b = reference_hits + 0.5, reference_n - reference_hits + 0.5
    return float(max(effect, 0.0)), float(stats.betabinom.sf(window_hits - 1, window_n, a, b))


def _test_column(reference: ColumnSummary, window: ColumnSummary) -> list[tuple[Signal, str, float, float]]:
    """Signal, statistic, p-value and effect of each test that both summaries allow.

    The share of categories the reference has not seen is expected to be that of those it saw once (Good 1953).
    """
    results: list[tuple[Signal, str, float, float]] = []
    if reference.n and window.n:
        effect, p_value = share_rise(reference.nulls, reference.n, window.nulls, window.n)
        results.append(("nulls", "beta-binomial", p_value, effect))
    if not reference.present or not window.present:
        return results
    if reference.categories is not None and window.categories is not None:
        known = {name: count for name, count in window.categories.items() if name in reference.categories}
        unseen = sum(window.categories.values()) - sum(known.values())
        singles = sum(count == 1 for count in reference.categories.values())
        total = sum(reference.categories.values())
        effect, p_value = share_rise(singles, total, unseen, sum(window.categories.values()))
        results.append(("unseen", "beta-binomial", p_value, effect))
        if known:
            effect, p_value = chi_squared(reference.categories, known)
            results.append(("distribution", "chi-squared", p_value, effect))
    elif reference.cdf is not None and window.cdf is not None:
        effect, p_value = kolmogorov_smirnov(reference, window)
        results.append(("distribution", "Kolmogorov-Smirnov", p_value, effect))
    return results
