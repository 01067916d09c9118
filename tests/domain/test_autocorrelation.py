from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from everloop.domain.autocorrelation import autocorrelation_time


def first_order(rho: float, n: int, seed: int = 0) -> np.ndarray:
    """An AR(1) series, whose integrated autocorrelation time is (1 + ρ) / (1 - ρ)."""
    return np.asarray(lfilter([1], [1, -rho], np.random.default_rng(seed).normal(0, 1, n + 1000)))[1000:]


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_the_time_of_a_first_order_series_is_its_closed_form(rho: float) -> None:
    found = [autocorrelation_time(first_order(rho, 20_000, seed)) for seed in range(10)]
    assert np.mean(found) == pytest.approx((1 + rho) / (1 - rho), rel=0.1)


def test_independent_values_are_worth_nearly_all_of_themselves() -> None:
    found = [autocorrelation_time(np.random.default_rng(seed).exponential(1, 2000)) for seed in range(50)]
    assert min(found) >= 1
    assert np.mean(found) < 1.15


def test_the_means_of_dependent_series_scatter_as_it_says() -> None:
    means = [first_order(0.8, 500, seed).mean() for seed in range(2000)]
    time = np.mean([autocorrelation_time(first_order(0.8, 500, seed)) for seed in range(200)])
    spread = np.sqrt(1 / (1 - 0.8**2))
    assert np.std(means) == pytest.approx(spread * np.sqrt(time / 500), rel=0.12)


def test_it_does_not_depend_on_scale_or_place() -> None:
    series = first_order(0.5, 301)
    assert autocorrelation_time(series * 1e150 + 3e150) == pytest.approx(autocorrelation_time(series))


@pytest.mark.parametrize(
    "series",
    [np.array([]), np.arange(19.0), np.full(500, 3.0), np.append(np.arange(100.0), np.nan), np.array([1.0, -1.0] * 50)],
    ids=["empty", "short", "constant", "nan", "alternating"],
)
def test_what_says_nothing_about_dependence_counts_as_independent(series: np.ndarray) -> None:
    assert autocorrelation_time(series) == 1


def test_a_series_that_only_rises_is_worth_at_least_one_value() -> None:
    assert 8 < autocorrelation_time(np.arange(100.0)) <= 100


def test_a_daily_cycle_is_counted_although_its_correlations_change_sign() -> None:
    """Days that are good or bad as a whole, with a cycle of 24 hours: only the days' own scatter stays in a mean over days."""
    rng = np.random.default_rng(0)
    cycle = 3 * np.sin(np.arange(24 * 200) * np.pi / 12)
    series = [cycle + np.repeat(rng.normal(0, 1, 200), 24) + rng.normal(0, 1, 24 * 200) for _ in range(50)]
    truth = 24 * 200 * np.var([one.mean() for one in series]) / np.mean([one.var() for one in series])
    assert np.mean([autocorrelation_time(one) for one in series]) > 0.7 * truth


def test_a_trend_counts_for_no_more_than_dependence_over_the_root_of_its_length() -> None:
    assert autocorrelation_time(np.arange(10_000.0)) < 2 * np.sqrt(10_000) + 2
