"""The statistics of drift against scipy and their closed forms."""

from __future__ import annotations

from math import erfc, exp, lgamma, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from everloop.domain.drift import chi_squared, kolmogorov_smirnov, share_rise
from tests.domain.examples import numbers

samples = arrays(float, st.integers(1, 60), elements=st.integers(-20, 20).map(float))
counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 200), min_size=1)


@pytest.mark.filterwarnings("ignore:ks_2samp")
@settings(max_examples=50)
@given(samples, samples)
def test_the_ks_distance_is_scipys_between_0_and_1_and_symmetric(one: np.ndarray, other: np.ndarray) -> None:
    distance, p_value = kolmogorov_smirnov(numbers(one), numbers(other))
    assert distance == pytest.approx(stats.ks_2samp(one, other).statistic)
    assert 0 <= distance <= 1
    assert 0 <= p_value <= 1
    assert kolmogorov_smirnov(numbers(other), numbers(one)) == (distance, p_value)
    assert kolmogorov_smirnov(numbers(one), numbers(one)) == (0, 1)


def test_the_ks_p_value_is_the_series_of_kolmogorov() -> None:
    rng = np.random.default_rng(0)
    distance, p_value = kolmogorov_smirnov(numbers(rng.normal(0, 1, 400)), numbers(rng.normal(0.15, 1, 300)))
    scaled = distance * sqrt(400 * 300 / 700)
    assert p_value == pytest.approx(2 * sum((-1) ** (k - 1) * exp(-2 * (k * scaled) ** 2) for k in range(1, 50)))
    assert 1e-4 < p_value < 0.5


@given(counts, counts)
def test_total_variation_lies_between_0_and_1_and_is_symmetric(one: dict[str, int], other: dict[str, int]) -> None:
    distance, p_value = chi_squared(one, other)
    assert distance == pytest.approx(chi_squared(other, one)[0])
    assert -1e-12 <= distance <= 1 + 1e-12
    assert 0 <= p_value <= 1
    assert chi_squared(one, one) == (0, pytest.approx(1))
    assert (distance > 1 - 1e-12) is not bool(set(one) & set(other))


def test_the_chi_squared_test_of_two_categories_has_its_closed_form() -> None:
    distance, p_value = chi_squared({"a": 700, "b": 300}, {"a": 60, "b": 40})
    statistic = 1100 * (700 * 40 - 300 * 60) ** 2 / (1000 * 100 * 760 * 340)
    assert distance == pytest.approx(0.1)
    assert p_value == pytest.approx(erfc(sqrt(statistic / 2)))


def test_rare_categories_are_tested_as_one() -> None:
    rare = {"c": 10, "d": 12, "e": 8}
    distance, p_value = chi_squared({"a": 600, "b": 370, **rare}, {"a": 50, "b": 44, "c": 6})
    assert p_value == pytest.approx(chi_squared({"a": 600, "b": 370, "pooled": 30}, {"a": 50, "b": 44, "pooled": 6})[1])
    assert distance == pytest.approx((0.1 + 0.07 + 0.05 + 0.012 + 0.008) / 2)


@pytest.mark.parametrize(("hits", "n"), [(0, 50), (1, 50), (7, 50), (50, 50)])
def test_the_p_value_of_a_share_is_the_tail_of_the_beta_binomial(hits: int, n: int) -> None:
    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    def log_choose(k: int) -> float:
        return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)

    a, b = 20.5, 980.5
    tail = sum(exp(log_choose(k) + log_beta(k + a, n - k + b) - log_beta(a, b)) for k in range(hits, n + 1))
    effect, p_value = share_rise(20, 1000, hits, n)
    assert p_value == pytest.approx(tail, rel=1e-6)
    assert effect == pytest.approx(max(hits / n - 0.02, 0))


@given(st.integers(0, 500), st.integers(0, 100))
def test_a_share_rises_by_0_to_1_and_more_hits_are_less_likely(reference_hits: int, hits: int) -> None:
    effect, p_value = share_rise(reference_hits, 500, hits, 100)
    assert 0 <= effect <= 1
    assert 0 <= p_value <= 1
    assert share_rise(reference_hits, 500, min(hits + 1, 100), 100)[1] <= p_value + 1e-12
