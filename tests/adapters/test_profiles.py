"""Profiles: sketches that say what the rows say, can be merged, and take every value that production sends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from everloop.adapters.profiles import merge_profiles, profile_rows, summarize_profile
from everloop.domain.drift import compare_profiles, kolmogorov_smirnov
from everloop.domain.schema import FeatureSchema, RowSchema
from everloop.domain.summaries import ColumnSummary, ProfileSummary

N = 20_000
RANK_ERROR = 0.01  # three times what a KLL sketch of k = 1024 is off by (Karnin, Lang, Liberty 2016)


def feature(name: str, kind: str) -> FeatureSchema:
    role = "numeric" if kind == "number" else "categorical"
    return FeatureSchema(name=name, role=role, type=kind, nullable=True)  # type: ignore[arg-type]


SCHEMA = RowSchema(features=(feature("x", "number"), feature("c", "text"), feature("b", "boolean")))


def rows(x: object = None, c: object = None, b: object = None) -> pd.DataFrame:
    n = max(len(column) for column in (x, c, b) if column is not None)  # type: ignore[arg-type]
    return pd.DataFrame(
        {"x": [0.0] * n if x is None else x, "c": ["a"] * n if c is None else c, "b": True if b is None else b}
    )


def summary(frame: pd.DataFrame, *, predictions: np.ndarray | None = None) -> ProfileSummary:
    return summarize_profile(profile_rows(frame, SCHEMA, predictions=predictions))


def column(frame: pd.DataFrame, name: str) -> ColumnSummary:
    return summary(frame).columns[name]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, shift: rng.normal(shift, 1, N),
        lambda rng, shift: rng.lognormal(shift, 2, N),
        lambda rng, shift: rng.poisson(3 + shift, N).astype(float),
        lambda rng, shift: np.where(rng.random(N) < 0.5, 0, rng.exponential(1 + shift, N)),
    ],
    ids=["normal", "heavy tail", "whole numbers", "half zeros"],
)
@pytest.mark.parametrize("shift", [0, 0.1, 1])
def test_the_distance_of_two_sketches_is_scipys_on_the_raw_data(draw: Callable[..., np.ndarray], shift: float) -> None:
    rng = np.random.default_rng(7)
    before, after = draw(rng, 0).astype("float32"), draw(rng, shift)[:5000].astype("float32")
    distance, _ = kolmogorov_smirnov(column(rows(x=before), "x"), column(rows(x=after), "x"))
    assert distance == pytest.approx(stats.ks_2samp(before, after).statistic, abs=RANK_ERROR)


def test_a_sketch_of_few_rows_is_exact_and_so_is_its_distribution_function() -> None:
    values = np.array([3, 1, 2, 2], dtype="float32")
    assert column(rows(x=values), "x").cdf(np.array([0.5, 1, 2, 2.5, 3])) == pytest.approx([0, 0.25, 0.75, 0.75, 1])


def test_merged_profiles_are_the_profile_of_both() -> None:
    rng = np.random.default_rng(3)
    whole = rows(
        x=np.where(rng.random(N) < 0.1, np.nan, rng.normal(size=N)),
        c=rng.choice(["a", "b", None], N, p=[0.6, 0.3, 0.1]),
        b=rng.random(N) < 0.2,
    )
    first, second = profile_rows(whole.iloc[:4000], SCHEMA), profile_rows(whole.iloc[4000:], SCHEMA)
    merged, expected = summarize_profile(merge_profiles(first, second)), summary(whole)
    assert merged.rows == N
    for name in SCHEMA.names:
        assert (merged.columns[name].n, merged.columns[name].nulls) == (N, expected.columns[name].nulls)
    assert merged.columns["c"].categories == whole["c"].value_counts().to_dict()
    assert kolmogorov_smirnov(merged.columns["x"], expected.columns["x"])[0] < RANK_ERROR


def test_categories_are_counted_and_nulls_stand_apart() -> None:
    found = column(rows(c=["a", "Łódź", None, "a", "", np.nan]), "c")
    assert (found.n, found.nulls, found.present) == (6, 2, 4)
    assert found.categories == {"a": 2, "Łódź": 1, "": 1}


@pytest.mark.parametrize("values", [[True, False, True], [True, None, False, True]])
def test_booleans_are_categories(values: list[bool | None]) -> None:
    found = column(rows(b=values), "b")
    assert found.categories == {"true": 2, "false": 1}
    assert found.nulls == len(values) - 3


def test_infinities_and_nan_are_counted_and_kept_out_of_the_distribution() -> None:
    found = column(rows(x=[np.inf, -np.inf, np.nan, 1, 2, 3]), "x")
    assert (found.n, found.nulls) == (6, 1)
    assert found.support is not None
    assert found.support.tolist() == [1, 2, 3]


@pytest.mark.parametrize("values", [[None, None], [np.nan, np.inf]], ids=["only nulls", "nothing finite"])
def test_a_column_without_a_finite_number_has_no_distribution(values: list[object]) -> None:
    found = column(rows(x=values), "x")
    assert (found.n, found.cdf, found.support) == (2, None, None)


def test_an_empty_window_has_a_profile_of_no_rows_that_merges() -> None:
    nothing, something = profile_rows(rows(x=[1.0]).iloc[:0], SCHEMA), profile_rows(rows(x=[1.0, 2.0]), SCHEMA)
    assert summarize_profile(nothing).rows == 0
    assert summarize_profile(merge_profiles(nothing, something)).rows == 2
    report = compare_profiles(summarize_profile(something), summarize_profile(nothing), min_rows=20)
    assert (report.verdict, report.reason) == ("undetermined", "0 rows in the window, 20 are required")


def test_categories_that_the_reference_never_saw_are_drift() -> None:
    reference, window = summary(rows(c=["a", "b"] * 500)), summary(rows(c=["a", "b"] * 240 + ["new"] * 20))
    (unseen,) = (
        test
        for test in compare_profiles(reference, window, min_rows=20).tests
        if (test.column, test.signal) == ("c", "unseen")
    )
    assert unseen.is_drift
    assert unseen.effect == pytest.approx(20 / 500)
    assert unseen.p_value == pytest.approx(stats.betabinom.sf(19, 500, 0.5, 1000.5))


@pytest.mark.parametrize(
    "categories",
    [
        10,
        500,
        pytest.param(
            1500,
        ),
    ],
)
def test_rows_of_the_same_distribution_are_no_drift_however_many_categories(categories: int) -> None:
    rng = np.random.default_rng(11)
    reference, window = (rows(c=rng.integers(0, categories, n).astype(str)) for n in (N, 2000))
    assert compare_profiles(summary(reference), summary(window), min_rows=20).drifted == ()


@pytest.mark.parametrize(
    ("classes", "predictions", "expected"),
    [
        ((), np.array([1.5, 2.5]), [1.5, 2.5]),
        (("no", "yes"), np.array(["yes", "no"], dtype=object), {"no": 1, "yes": 1}),
    ],
    ids=["numbers", "classes"],
)
def test_predictions_are_profiled_beside_the_features(
    classes: tuple[str, ...], predictions: np.ndarray, expected: object
) -> None:
    schema = SCHEMA.model_copy(update={"classes": classes})
    found = summarize_profile(profile_rows(rows(x=[1.0, 2.0]), schema, predictions=predictions))
    assert set(found.columns) == {"x", "c", "b", "prediction"}
    seen = found.columns["prediction"]
    assert (seen.categories if classes else list(seen.support)) == expected  # type: ignore[arg-type]
