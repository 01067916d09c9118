"""The statistics of drift against scipy and their closed forms."""

from __future__ import annotations

from math import erfc, exp, lgamma, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from everloop.domain.two_sample import (
    KOLMOGOROV_SQUARE,
    ChiSquared,
    KolmogorovSmirnov,
    ShareRise,
    chi_squared,
    kolmogorov_smirnov,
    mean_square,
)
from tests.domain.examples import numbers

samples = arrays(float, st.integers(1, 60), elements=st.integers(-20, 20).map(float))
counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 200), min_size=1)


@pytest.mark.filterwarnings("ignore:ks_2samp")
@settings(max_examples=50)
@given(samples, samples)
def test_the_ks_distance_is_scipys_between_0_and_1_and_symmetric(one: np.ndarray, other: np.ndarray) -> None:
    found = kolmogorov_smirnov(numbers(one), numbers(other))
    distance, p_value = found.effect, found.p_value()
    assert distance == pytest.approx(stats.ks_2samp(one, other).statistic)
    assert 0 <= distance <= 1
    assert 0 <= p_value <= 1
    assert kolmogorov_smirnov(numbers(other), numbers(one)) == found
    assert kolmogorov_smirnov(numbers(one), numbers(one)).effect == 0
    assert kolmogorov_smirnov(numbers(one), numbers(one)).p_value() == 1


def test_the_ks_p_value_is_the_series_of_kolmogorov() -> None:
    rng = np.random.default_rng(0)
    found = kolmogorov_smirnov(numbers(rng.normal(0, 1, 400)), numbers(rng.normal(0.15, 1, 300)))
    scaled, p_value = found.effect * sqrt(400 * 300 / 700), found.p_value()
    assert p_value == pytest.approx(2 * sum((-1) ** (k - 1) * exp(-2 * (k * scaled) ** 2) for k in range(1, 50)))
    assert 1e-4 < p_value < 0.5


@given(counts, counts)
def test_total_variation_lies_between_0_and_1_and_is_symmetric(one: dict[str, int], other: dict[str, int]) -> None:
    distance, p_value = chi_squared(one, other).effect, chi_squared(one, other).p_value()
    assert distance == pytest.approx(chi_squared(other, one).effect)
    assert -1e-12 <= distance <= 1 + 1e-12
    assert 0 <= p_value <= 1
    assert chi_squared(one, one).effect == 0
    assert chi_squared(one, one).p_value() > 0.8  # exactly 1 unless a share is tested by its one tail
    assert (distance > 1 - 1e-12) is not bool(set(one) & set(other))


def test_the_chi_squared_test_of_two_categories_has_its_closed_form() -> None:
    found = chi_squared({"a": 700, "b": 300}, {"a": 60, "b": 40})
    statistic = 1100 * (700 * 40 - 300 * 60) ** 2 / (1000 * 100 * 760 * 340)
    assert found.effect == pytest.approx(0.1)
    assert found.p_value() == pytest.approx(erfc(sqrt(statistic / 2)))
    assert found.dispersion() == pytest.approx((statistic, 1))


@given(counts, counts)
def test_without_rare_categories_the_chi_squared_test_is_scipys(one: dict[str, int], other: dict[str, int]) -> None:
    names = sorted(set(one) | set(other))
    table = np.array([[side.get(name, 0) + 100 for name in names] for side in (one, other)])
    found = ChiSquared(0.0, *table.astype(float))
    assert found.p_value() == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_rare_categories_are_tested_as_one() -> None:
    rare = {"c": 30, "d": 36, "e": 24}
    found = chi_squared({"a": 550, "b": 360, **rare}, {"a": 50, "b": 39, "c": 11})
    pooled = chi_squared({"a": 550, "b": 360, "pooled": 90}, {"a": 50, "b": 39, "pooled": 11})
    assert found.p_value() == pytest.approx(pooled.p_value())
    assert found.effect == pytest.approx((0.05 + 0.03 + 0.08 + 0.036 + 0.024) / 2)


def test_a_category_too_rare_for_chi_squared_is_judged_by_the_tail_of_its_share() -> None:
    found = chi_squared({"a": 9900, "b": 100}, {"a": 190, "b": 10})
    assert found.p_value() == pytest.approx(2 * ShareRise(100, 10_000, 10, 200, "distribution").p_value())
    assert found.p_value() > 1000 * float(stats.chi2_contingency([[9900, 100], [190, 10]], correction=False).pvalue)


@pytest.mark.parametrize(("hits", "n"), [(0, 50), (1, 50), (7, 50), (50, 50)])
def test_the_p_value_of_a_share_is_the_tail_of_the_beta_binomial(hits: int, n: int) -> None:
    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    def log_choose(k: int) -> float:
        return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)

    a, b = 20.5, 980.5
    tail = sum(exp(log_choose(k) + log_beta(k + a, n - k + b) - log_beta(a, b)) for k in range(hits, n + 1))
    found = ShareRise(20, 1000, hits, n, "nulls")
    assert found.p_value() == pytest.approx(tail, rel=1e-6)
    assert found.effect == pytest.approx(max(hits / n - 0.02, 0))


@given(st.integers(0, 500), st.integers(0, 100))
def test_a_share_rises_by_0_to_1_and_more_hits_are_less_likely(reference_hits: int, hits: int) -> None:
    found = ShareRise(reference_hits, 500, hits, 100, "nulls")
    assert 0 <= found.effect <= 1
    assert 0 <= found.p_value() <= 1
    assert ShareRise(reference_hits, 500, min(hits + 1, 100), 100, "nulls").p_value() <= found.p_value() + 1e-12


def test_n_rows_with_a_design_effect_are_tested_as_so_many_fewer() -> None:
    assert KolmogorovSmirnov(0.1, 1000).p_value(4) == KolmogorovSmirnov(0.1, 250).p_value()
    many, few = {"a": 6400, "b": 3600}, {"a": 1600, "b": 900}
    found = chi_squared(many, {"a": 560, "b": 440}).p_value(4)
    assert found == pytest.approx(chi_squared(few, {"a": 140, "b": 110}).p_value())
    rise, fewer = ShareRise(400, 8000, 80, 800, "nulls"), ShareRise(100, 2000, 20, 200, "nulls")
    assert rise.p_value(4) == pytest.approx(fewer.p_value())


def test_rows_repeated_k_times_have_a_dispersion_of_k() -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(0, 1, 100) for _ in range(300)]
    reference = numbers(rng.normal(0, 1, 20_000))
    for repeats in (1, 9):
        pairs = [kolmogorov_smirnov(reference, numbers(np.repeat(draw, repeats))).dispersion() for draw in values]
        assert np.mean([square / freedom for square, freedom in pairs]) == pytest.approx(repeats, rel=0.1)
        shares = [ShareRise(10_000, 20_000, repeats * int((draw > 0).sum()), repeats * 100, "nulls") for draw in values]
        assert np.mean([share.dispersion()[0] for share in shares]) == pytest.approx(repeats, rel=0.15)


def test_a_rare_category_that_comes_in_runs_is_seen_to_do_so() -> None:
    rng = np.random.default_rng(2)
    hits = 17 * rng.binomial(12, 0.02, 400)  # of 204 rows: days of 17 rows that are holidays or not
    pairs = [chi_squared({"no": 19_600, "yes": 400}, {"no": 204 - n, "yes": int(n)}).dispersion() for n in hits]
    assert sum(square for square, _ in pairs) / sum(freedom for _, freedom in pairs) == pytest.approx(17, rel=0.15)


def test_the_mean_square_of_the_ks_distance_is_kolmogorovs_and_less_on_values_that_repeat() -> None:
    assert pytest.approx(stats.kstwobign.var() + stats.kstwobign.mean() ** 2, rel=1e-3) == KOLMOGOROV_SQUARE
    assert mean_square(numbers(np.arange(1000))) == KOLMOGOROV_SQUARE
    assert mean_square(numbers([0, 1, 1, 1] * 50)) == pytest.approx(0.25 * 0.75, rel=0.1)
    rng = np.random.default_rng(1)
    whole = rng.integers(0, 4, 5000)
    draws = [stats.ks_2samp(whole, rng.choice(whole, 200), method="asymp").statistic for _ in range(300)]
    assert mean_square(numbers(whole)) == pytest.approx(200 * np.mean(np.square(draws)), rel=0.15)
