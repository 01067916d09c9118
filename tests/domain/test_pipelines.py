from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.domain.configuration import Configuration
from everloop.domain.errors import SpecError
from everloop.domain.frames import conform, derive_schema
from everloop.domain.pipelines import build_pipeline, check_parameters, predict, predict_conformed
from everloop.domain.spec import ESTIMATORS_BY_KIND, Scalar
from tests.domain.examples import LOGISTIC, RIDGE, a_history, a_spec

FAST = {"HistGradientBoosting": {"max_iter": 3}, "RandomForest": {"n_estimators": 3}, "ExtraTrees": {"n_estimators": 3}}
ROWS = a_history()
SCHEMA = derive_schema(ROWS, a_spec())
STRANGE = pd.DataFrame({"x": [np.nan, 3.0], "c": ["never seen", None]})


def fitted(estimator: str, target: pd.Series, *, seed: int = 0, **parameters: Scalar) -> Any:
    fast = next((values for name, values in FAST.items() if name in estimator), {})
    configuration = Configuration(estimator=estimator, parameters={**fast, **parameters})
    return build_pipeline(configuration, SCHEMA, seed=seed).fit(conform(ROWS, SCHEMA), target.to_numpy())


def test_a_parameter_of_the_estimator_is_accepted() -> None:
    check_parameters(a_spec(search={"candidates": [RIDGE | {"alpha": [0.1, 1.0], "solver": "svd"}]}))


def test_a_parameter_the_estimator_does_not_have_is_answered_with_those_it_has() -> None:
    message = (
        r"^models/toy/model.toml: search.candidates: 'alhpa' is not a parameter of sklearn.linear_model.Ridge; "
        r"allowed: alpha, fit_intercept, "
    )
    with pytest.raises(SpecError, match=message):
        check_parameters(a_spec(search={"candidates": [RIDGE | {"alhpa": 0.1}]}))


def test_a_title_names_the_class_the_parameters_and_the_history() -> None:
    parameters: dict[str, Scalar] = {"learning_rate": 0.123456, "max_iter": 150, "loss": "poisson"}
    title = Configuration(estimator="sklearn.ensemble.Booster", parameters=parameters, history="180d").title
    assert title == "Booster(learning_rate=0.123, max_iter=150, loss=poisson) on 180d"


@pytest.mark.parametrize("estimator", ESTIMATORS_BY_KIND["regression"])
def test_every_regressor_learns_and_answers_nulls_and_unseen_categories(estimator: str) -> None:
    pipeline = fitted(estimator, ROWS["y"])
    learned = predict(pipeline, ROWS, SCHEMA)
    assert np.corrcoef(learned.values, ROWS["y"])[0, 1] > 0.8
    assert (learned.probabilities, learned.classes) == (None, ())
    assert np.isfinite(predict(pipeline, STRANGE, SCHEMA).values).all()


@pytest.mark.parametrize("estimator", ESTIMATORS_BY_KIND["classification"])
@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ((ROWS["y"] > 6).astype(int), (0, 1)),
        (ROWS["y"] > 6, (False, True)),
        (pd.cut(ROWS["y"], 3, labels=["low", "mid", "high"]).astype(str), ("high", "low", "mid")),
    ],
    ids=["integers", "booleans", "texts"],
)
def test_every_classifier_names_its_classes_and_gives_them_probabilities(
    estimator: str, target: pd.Series, classes: tuple[Scalar, ...]
) -> None:
    pipeline = fitted(estimator, target)
    schema = SCHEMA.model_copy(update={"classes": classes})
    said = predict(pipeline, ROWS, schema)
    assert said.classes == classes
    assert [type(name) for name in said.classes] == [type(name) for name in classes]
    assert said.probabilities is not None
    assert said.probabilities.sum(axis=1) == pytest.approx(np.ones(len(ROWS)))
    assert said.values.tolist() == [classes[best] for best in said.probabilities.argmax(axis=1)]
    strange = predict(pipeline, STRANGE, schema).probabilities
    assert strange is not None
    assert np.isfinite(strange).all()


def test_probabilities_follow_the_classes_of_the_schema_also_for_a_class_not_trained_on() -> None:
    target = pd.Series(np.select([ROWS.index < 40, ROWS["x"] > 3], ["a", "c"], "b"))
    schema = derive_schema(ROWS.assign(y=target), a_spec(kind="multiclass"))
    pipeline = build_pipeline(Configuration(estimator=LOGISTIC["estimator"]), schema, seed=0)
    pipeline.fit(conform(ROWS[40:], schema), target[40:].to_numpy())
    assert predict(pipeline, ROWS, schema).classes == schema.classes == ("a", "b", "c")


def test_a_linear_model_finds_the_line_that_made_the_rows() -> None:
    exact = 2 * ROWS["x"] + 5 * (ROWS["c"] == "b")
    pipeline = fitted("sklearn.linear_model.Ridge", exact, alpha=1e-3)
    asked = pd.DataFrame({"x": [0.0, 10.0], "c": ["a", "b"]})
    assert predict(pipeline, asked, SCHEMA).values == pytest.approx([0, 25], abs=1e-2)


def test_a_missing_number_counts_as_the_median_for_a_linear_model() -> None:
    pipeline = fitted("sklearn.linear_model.Ridge", ROWS["y"])
    asked = pd.DataFrame({"x": [np.nan, np.median(ROWS["x"].astype("float32"))], "c": "a"})
    missing, median = predict(pipeline, asked, SCHEMA).values
    assert missing == pytest.approx(median, rel=1e-5)


@pytest.mark.parametrize("estimator", ["sklearn.ensemble.RandomForestRegressor", "sklearn.linear_model.Ridge"])
def test_a_row_is_answered_alike_alone_and_in_a_batch(estimator: str) -> None:
    pipeline = fitted(estimator, ROWS["y"])
    batch = predict(pipeline, ROWS.head(20), SCHEMA).values
    alone = [predict(pipeline, ROWS.iloc[[row]], SCHEMA).values[0] for row in range(20)]
    assert alone == pytest.approx(batch, rel=1e-12)


def test_conformed_rows_are_answered_like_raw_ones() -> None:
    pipeline = fitted("sklearn.linear_model.Ridge", ROWS["y"])
    raw = predict(pipeline, ROWS, SCHEMA).values
    assert predict_conformed(pipeline, conform(ROWS, SCHEMA), classes=()).values.tolist() == raw.tolist()


def test_the_seed_decides_what_is_random_unless_the_spec_does() -> None:
    def values(seed: int, **parameters: Scalar) -> list[float]:
        pipeline = fitted("sklearn.ensemble.ExtraTreesRegressor", ROWS["y"], seed=seed, max_depth=2, **parameters)
        return predict(pipeline, ROWS, SCHEMA).values.tolist()

    assert values(1) == values(1)
    assert values(1) != values(2)
    assert values(1, random_state=7) == values(2, random_state=7)


@pytest.mark.parametrize("features", [{"numeric": ["x"], "categorical": []}, {"numeric": [], "categorical": ["c"]}])
def test_one_kind_of_feature_is_enough(features: dict[str, list[str]]) -> None:
    schema = derive_schema(ROWS, a_spec(features=features))
    pipeline = build_pipeline(Configuration(estimator=RIDGE["estimator"]), schema, seed=0)
    pipeline.fit(conform(ROWS, schema), ROWS["y"].to_numpy())
    assert np.corrcoef(predict(pipeline, ROWS, schema).values, ROWS["y"])[0, 1] > 0.5
