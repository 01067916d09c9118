"""Permutation importance: what the model uses weighs, what it does not use weighs nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance as of_scikit_learn
from sklearn.linear_model import LinearRegression

from everloop.domain.importance import permutation_importance
from everloop.domain.metrics import Predictions


def rows(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "c": rng.choice(["a", "b"], n)})


def model(frame: pd.DataFrame) -> Predictions:
    return Predictions((3 * frame["x"] + frame["z"]).to_numpy())


def test_squared_loss_of_a_linear_model_shares_by_the_squares_of_its_coefficients() -> None:
    """Shuffling x adds 2 b^2 var(x) to the squared loss (Fisher, Rudin and Dominici 2019, theorem 2): 9 to 1."""
    frame = rows(5000)
    found = permutation_importance(model, frame, model(frame).values, "rmse", max_rows=5000, repeats=5)
    assert found == pytest.approx({"x": 0.9, "z": 0.1, "c": 0.0}, abs=0.01)
    assert sum(found.values()) == pytest.approx(1)


def test_it_agrees_with_scikit_learn() -> None:
    frame = rows(400)[["x", "z"]]
    truth = model(frame).values + np.random.default_rng(1).normal(0, 2, 400)
    fitted = LinearRegression().fit(frame, truth)
    theirs = of_scikit_learn(fitted, frame, truth, scoring="neg_mean_absolute_error", n_repeats=50, random_state=0)
    ours = permutation_importance(lambda asked: Predictions(fitted.predict(asked)), frame, truth, "mae", repeats=50)
    expected = theirs.importances_mean / theirs.importances_mean.sum()
    assert [ours["x"], ours["z"]] == pytest.approx(expected, abs=0.01)


def test_a_classifier_is_weighed_by_its_probabilities() -> None:
    def classify(frame: pd.DataFrame) -> Predictions:
        positive = np.where(frame["c"] == "b", 0.9, 0.1)
        return Predictions(np.where(positive > 0.5, 1, 0), np.column_stack([1 - positive, positive]), (0, 1))

    frame = rows(300)
    truth = (frame["c"] == "b").astype(int)
    assert permutation_importance(classify, frame, truth, "log_loss") == {"x": 0.0, "z": 0.0, "c": 1.0}


def test_a_column_whose_shuffling_helps_by_chance_counts_nothing() -> None:
    frame = rows(200)
    truth = np.random.default_rng(5).normal(size=200)
    found = permutation_importance(model, frame, truth - 3 * frame["x"], "rmse")
    assert found["x"] == 0.0
    assert min(found.values()) >= 0


def test_a_model_that_uses_nothing_gives_equal_shares() -> None:
    found = permutation_importance(lambda asked: Predictions(np.zeros(len(asked))), rows(50), np.ones(50), "mae")
    assert found == pytest.approx({"x": 1 / 3, "z": 1 / 3, "c": 1 / 3})


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_to_shuffle_give_equal_shares(n: int) -> None:
    assert permutation_importance(model, rows(n), np.zeros(n), "mae") == pytest.approx(dict.fromkeys("xzc", 1 / 3))


def test_rows_are_bounded_and_the_callers_frame_is_left_as_it_was() -> None:
    frame, asked = rows(3000), []
    before = frame.copy()

    def count(shuffled: pd.DataFrame) -> Predictions:
        asked.append(len(shuffled))
        return model(shuffled)

    first = permutation_importance(count, frame, model(frame).values, "mae", seed=1)
    assert asked == [500, 1000, 1000, 1000]
    pd.testing.assert_frame_equal(frame, before)
    assert permutation_importance(model, frame, model(frame).values, "mae", seed=1) == first
