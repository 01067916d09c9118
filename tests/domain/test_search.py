from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from everloop.domain.configuration import Configuration
from everloop.domain.errors import SearchFailed, SpecError
from everloop.domain.frames import derive_schema
from everloop.domain.metrics import row_losses, score
from everloop.domain.pipelines import check_parameters, predict
from everloop.domain.search import SearchResult, Trial, fit_configuration, search_configurations
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import split_by_time, within_history
from tests.domain.examples import LOGISTIC, RIDGE, a_history, a_spec

ROWS = a_history()
FOREST = {"estimator": "sklearn.ensemble.RandomForestRegressor", "n_estimators": 3}
LASSO = {"estimator": "sklearn.linear_model.ElasticNet"}


def search(spec: ModelSpec, **options: Any) -> SearchResult:
    split = split_by_time(ROWS, spec)
    return search_configurations(spec, split, derive_schema(split.known, spec), **options)


def drawn(candidate: dict[str, Any], name: str, *, trials: int = 3) -> list[Any]:
    result = search(a_spec(search={"trials": trials, "candidates": [candidate]}))
    return [trial.configuration.parameters[name] for trial in result.trials]


def test_every_candidate_is_tried_and_every_trial_is_told() -> None:
    told: list[Trial] = []
    result = search(a_spec(search={"trials": 3, "candidates": [RIDGE, FOREST, LASSO]}), on_trial=told.append)
    assert [trial.configuration.estimator for trial in told] == [c["estimator"] for c in (RIDGE, FOREST, LASSO)]
    assert sorted(told, key=lambda trial: trial.metric) == list(result.trials)


def test_the_best_configuration_is_the_one_with_the_lowest_metric() -> None:
    result = search(a_spec(search={"trials": 2, "candidates": [RIDGE | {"alpha": 1e9}, RIDGE | {"alpha": 0.01}]}))
    assert result.best.parameters == {"alpha": 0.01}
    assert result.trials[0].metric < result.trials[1].metric


@pytest.mark.parametrize("metric", ["mae", "rmse"])
def test_a_trial_scores_a_model_of_the_training_rows_on_the_validation_rows(metric: str) -> None:
    spec = a_spec(search={"trials": 1, "candidates": [RIDGE]}, gates={"metric": metric})
    split = split_by_time(ROWS, spec)
    schema = derive_schema(split.known, spec)
    pipeline = fit_configuration(Configuration(**RIDGE), split.train, spec, schema)
    losses = row_losses(
        spec.gates.metric, split.validation["y"].to_numpy(), predict(pipeline, split.validation, schema)
    )
    (trial,) = search(spec).trials
    assert trial.metric == pytest.approx(score(spec.gates.metric, losses))
    assert trial.rows == len(split.train)


def test_the_holdout_has_no_say_in_the_search() -> None:
    spec = a_spec(search={"trials": 2, "candidates": [RIDGE, FOREST]})
    before = search(spec)
    split = split_by_time(ROWS.assign(y=ROWS["y"].where(ROWS.index < 80, 1e6)), spec)
    assert search_configurations(spec, split, derive_schema(split.known, spec)) == before


def test_the_seed_repeats_a_search() -> None:
    def result(seed: int) -> SearchResult:
        candidate = RIDGE | {"alpha": {"low": 0.1, "high": 10}}
        return search(a_spec(search={"trials": 3, "seed": seed, "candidates": [candidate]}))

    assert result(1) == result(1)
    assert result(1) != result(2)


def test_values_are_drawn_from_their_ranges_and_lists_and_single_ones_are_kept() -> None:
    alphas = drawn(RIDGE | {"alpha": {"low": 0.1, "high": 0.4, "log": True}}, "alpha")
    assert all(0.1 <= alpha <= 0.4 for alpha in alphas)
    assert len(set(alphas)) == 3
    assert set(drawn(RIDGE | {"solver": ["svd", "lsqr"]}, "solver", trials=6)) == {"svd", "lsqr"}
    assert drawn(RIDGE | {"fit_intercept": False}, "fit_intercept") == [False] * 3


def test_how_much_history_is_used_is_searched_too() -> None:
    result = search(a_spec(data={"history": ["all", "1d"]}, search={"trials": 6}))
    spec = a_spec()
    train = split_by_time(ROWS, spec).train
    expected = {"all": len(train), "1d": len(within_history(train, "1d", "t"))}
    assert {trial.configuration.history: trial.rows for trial in result.trials} == expected


def test_one_history_is_used_by_every_trial() -> None:
    result = search(a_spec(data={"history": "1d"}, search={"trials": 2}))
    assert [(trial.configuration.history, trial.rows) for trial in result.trials] == [("1d", 24)] * 2


def test_a_fitted_forest_predicts_on_one_thread() -> None:
    spec = a_spec()
    configuration = Configuration(estimator=FOREST["estimator"], parameters={"n_estimators": 3, "n_jobs": 2})
    pipeline = fit_configuration(configuration, ROWS, spec, derive_schema(ROWS, spec))
    assert pipeline.get_params()["model__n_jobs"] is None


def test_a_classifier_is_searched_by_its_probabilities() -> None:
    spec = a_spec(kind="binary", search={"trials": 2, "candidates": [LOGISTIC | {"C": [1e-4, 1.0]}]})
    split = split_by_time(ROWS.assign(y=np.where(ROWS["y"] > 6, "high", "low")), spec)
    result = search_configurations(spec, split, derive_schema(split.known, spec))
    assert 0 < result.trials[0].metric < np.log(2)


def test_a_range_of_whole_numbers_is_drawn_as_whole_numbers() -> None:
    counts = drawn(FOREST | {"n_estimators": {"low": 2, "high": 6}}, "n_estimators")
    assert all(isinstance(count, int) for count in counts)


def test_a_value_the_estimator_refuses_is_an_error_of_the_spec() -> None:
    spec = a_spec(search={"trials": 1, "candidates": [RIDGE | {"solver": "newton"}]})
    with pytest.raises(SpecError, match=r"search.candidates: .*'solver' parameter of Ridge must be .* Got 'newton'"):
        check_parameters(spec)


def test_a_search_in_which_nothing_can_be_fitted_says_why() -> None:
    with pytest.raises(SearchFailed, match=r"none of 1 configurations could be fitted; the first: Ridge.*newton"):
        drawn(RIDGE | {"solver": "newton"}, "solver", trials=1)


def test_a_history_with_a_single_class_costs_its_trial_and_not_the_search() -> None:
    spec = a_spec(kind="binary", data={"history": ["all", "1d"]}, search={"trials": 6})
    split = split_by_time(ROWS.assign(y=(ROWS.index < 40).astype(int)), spec)
    result = search_configurations(spec, split, derive_schema(split.known, spec))
    assert result.best.history == "all"
