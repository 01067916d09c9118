"""Profiles: sketches that say what the rows say, can be merged, and take every value that production sends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from everloop.adapters.profiles import merge_profiles, profile_chunks, profile_rows, summarize_profile
from everloop.domain.drift import compare_profiles
from everloop.domain.errors import SchemaMismatch
from everloop.domain.schema import FeatureSchema, RowSchema
from everloop.domain.spec import Scalar
from everloop.domain.summaries import ColumnSummary, ProfileSummary
from everloop.domain.two_sample import kolmogorov_smirnov

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
    found = kolmogorov_smirnov(column(rows(x=before), "x"), column(rows(x=after), "x"))
    assert found.effect == pytest.approx(stats.ks_2samp(before, after).statistic, abs=RANK_ERROR)


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
    merged, expected = summarize_profile(merge_profiles([first, second])), summary(whole)
    assert merged.rows == N
    for name in SCHEMA.names:
        assert (merged.columns[name].n, merged.columns[name].nulls) == (N, expected.columns[name].nulls)
    assert merged.columns["c"].categories == whole["c"].value_counts().to_dict()
    assert kolmogorov_smirnov(merged.columns["x"], expected.columns["x"]).effect < RANK_ERROR


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
    assert (found.n, found.nulls, found.infinite, found.low, found.high) == (6, 1, 2, 1, 3)
    assert found.support is not None
    assert found.support.tolist() == [1, 2, 3]


@pytest.mark.parametrize("values", [[None, None], [np.nan, np.inf]], ids=["only nulls", "nothing finite"])
def test_a_column_without_a_finite_number_has_no_distribution(values: list[object]) -> None:
    found = column(rows(x=values), "x")
    assert (found.n, found.cdf, found.support, found.low, found.high) == (2, None, None, None, None)
    assert found.nulls + found.infinite == 2


def test_an_empty_window_has_a_profile_of_no_rows_that_merges() -> None:
    nothing, something = profile_rows(rows(x=[1.0]).iloc[:0], SCHEMA), profile_rows(rows(x=[1.0, 2.0]), SCHEMA)
    assert summarize_profile(nothing).rows == 0
    assert summarize_profile(merge_profiles([nothing, something])).rows == 2
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
    [10, 500, 1500],
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
        ((0, 1), np.array([0.0, 1.0]), {"0": 1, "1": 1}),
        ((False, True), np.array([False, True]), {"false": 1, "true": 1}),
    ],
    ids=["numbers", "classes", "classes that are whole", "classes that are boolean"],
)
def test_predictions_are_profiled_beside_the_features(
    classes: tuple[Scalar, ...], predictions: np.ndarray, expected: object
) -> None:
    schema = SCHEMA.model_copy(update={"classes": classes})
    found = summarize_profile(profile_rows(rows(x=[1.0, 2.0]), schema, predictions=predictions))
    assert set(found.columns) == {"x", "c", "b", "prediction"}
    seen = found.columns["prediction"]
    assert (seen.categories if classes else list(seen.support)) == expected  # type: ignore[arg-type]


def mixed(n: int) -> pd.DataFrame:
    """Rows with nulls and infinities; the later ones have a category that the first ones do not."""
    rng = np.random.default_rng(3)
    x = np.where(rng.random(n) < 0.1, np.nan, rng.lognormal(size=n))
    x[::97] = np.inf
    c = rng.choice(["a", "b", None], n, p=[0.6, 0.3, 0.1])
    c[-3:] = "late"
    return rows(x=x, c=c, b=rng.random(n) < 0.2)


@pytest.mark.parametrize("size", [1, 700, 65_536, 200_000])
def test_the_profile_of_chunks_is_that_of_the_whole(size: int) -> None:
    whole = mixed(70_000 if size > 1 else 300)
    chunks = (whole.iloc[first : first + size] for first in range(0, len(whole), size))
    profile = profile_chunks(chunks, SCHEMA, predict=lambda chunk: chunk["x"].to_numpy() * 2)
    found, x = summarize_profile(profile), whole["x"].to_numpy(np.float32)
    finite = x[np.isfinite(x)]
    seen = found.columns["x"]
    assert (found.rows, seen.nulls, seen.infinite) == (len(whole), int(np.isnan(x).sum()), int(np.isinf(x).sum()))
    assert (seen.low, seen.high) == (float(finite.min()), float(finite.max()))
    assert found.columns["c"].categories == whole["c"].value_counts().to_dict()
    assert found.columns["prediction"].high == 2 * seen.high
    assert seen.cdf is not None
    points = np.quantile(finite, np.linspace(0, 1, 200))
    assert np.abs(seen.cdf(points) - np.searchsorted(np.sort(finite), points, "right") / len(finite)).max() < RANK_ERROR


def test_many_merged_profiles_stay_within_the_error_of_one_sketch_and_count_exactly() -> None:
    whole = mixed(60_000)
    merged = summarize_profile(merge_profiles([profile_rows(whole.iloc[at::50], SCHEMA) for at in range(50)]))
    seen, finite = merged.columns["x"], whole["x"][np.isfinite(whole["x"])].to_numpy(np.float32)
    assert (seen.n, seen.nulls, seen.infinite) == (60_000, whole["x"].isna().sum(), np.isinf(whole["x"]).sum())
    assert merged.columns["c"].categories == whole["c"].value_counts().to_dict()
    assert seen.cdf is not None
    points = np.quantile(finite, np.linspace(0, 1, 200))
    assert np.abs(seen.cdf(points) - np.searchsorted(np.sort(finite), points, "right") / len(finite)).max() < RANK_ERROR


def test_the_moments_in_a_profile_are_those_of_numpy_also_after_a_merge() -> None:
    from whylogs.core.view.dataset_profile_view import DatasetProfileView

    values = np.random.default_rng(5).normal(1000, 3, 150_000).astype("float32")
    parts = [profile_rows(rows(x=part), SCHEMA) for part in np.split(values, [100_000, 100_001])]
    for profile in (profile_rows(rows(x=values), SCHEMA), merge_profiles(parts)):
        moments = DatasetProfileView.deserialize(profile).get_column("x").get_metric("distribution")
        assert moments.avg == pytest.approx(values.mean(dtype="float64"), rel=1e-9)
        assert moments.stddev == pytest.approx(values.std(dtype="float64", ddof=1), rel=1e-6)


def test_more_categories_than_the_sketch_holds_are_not_given_as_counts_also_after_a_merge() -> None:
    few, many = (
        profile_rows(rows(c=np.arange(count).astype(str)), SCHEMA, predictions=np.zeros(count))
        for count in (9000, 30_000)
    )
    others = profile_rows(rows(c=(np.arange(9000) + 50_000).astype(str)), SCHEMA)
    assert len(summarize_profile(few).columns["c"].categories or ()) == 9000
    for profile in (many, merge_profiles([few, others])):
        seen = summarize_profile(profile).columns["c"]
        assert (seen.categories, seen.nulls) == (None, 0)


@pytest.mark.parametrize("count", [12_288, 12_289, 12_290])
def test_categories_are_counted_up_to_the_capacity_of_the_sketch(count: int) -> None:
    found = column(rows(c=np.arange(count).astype(str)), "c").categories
    assert found == (dict.fromkeys(np.arange(count).astype(str).tolist(), 1) if count <= 12_288 else None)


def test_a_sketch_of_sorted_rows_is_as_good_as_one_of_shuffled_rows() -> None:
    values = np.arange(300_000, dtype="float32")
    for given in (values, values[::-1], np.random.default_rng(1).permutation(values)):
        seen = column(rows(x=given), "x")
        assert seen.cdf is not None
        points = np.linspace(0, 299_999, 1000)
        assert np.abs(seen.cdf(points) - (np.floor(points) + 1) / 300_000).max() < RANK_ERROR


def test_columns_beside_the_features_are_numbers_if_they_are_floats_and_categories_else() -> None:
    extra = pd.DataFrame({"time.age": [1.5, np.nan], "time.hour": ["00", "23"], "code": [3, 3]})
    found = summarize_profile(profile_rows(rows(x=[1.0, 2.0]), SCHEMA, extra=extra)).columns
    assert (found["time.age"].low, found["time.age"].nulls) == (1.5, 1)
    assert (found["time.hour"].categories, found["code"].categories) == ({"00": 1, "23": 1}, {"3": 2})


def test_a_column_beside_the_features_has_a_name_of_its_own_and_a_value_a_row() -> None:
    with pytest.raises(SchemaMismatch, match="'x' is a feature and the name of a column beside the features; rename"):
        profile_rows(rows(x=[1.0]), SCHEMA, extra=pd.DataFrame({"x": [1.0]}))
    with pytest.raises(SchemaMismatch, match="'prediction' has 3 values for 1 rows; one a row is required"):
        profile_rows(rows(x=[1.0]), SCHEMA, predictions=np.zeros(3))


def test_a_frame_without_a_feature_is_refused_with_the_columns_it_has() -> None:
    with pytest.raises(SchemaMismatch, match="column 'b' is required once; found 'x', 'c'; bring it"):
        profile_rows(rows(x=[1.0]).drop(columns="b"), SCHEMA)
