"""ONNX: every estimator that a spec may name is exported, and the export answers as the fitted pipeline does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.pipeline import Pipeline

from everloop.adapters.onnx_export import export_onnx
from everloop.adapters.onnx_runtime import OnnxModel
from everloop.domain.batch import Batch
from everloop.domain.configuration import Configuration
from everloop.domain.errors import ConversionFailed
from everloop.domain.frames import batch_of, conform, derive_schema
from everloop.domain.parity import compare_answers
from everloop.domain.pipelines import build_pipeline, predict
from everloop.domain.schema import RowSchema
from everloop.domain.spec import ESTIMATORS_BY_KIND, Scalar
from tests.factories import make_rows, make_spec

REGRESSORS, CLASSIFIERS = ESTIMATORS_BY_KIND["regression"], ESTIMATORS_BY_KIND["classification"]
SMALL: dict[str, dict[str, Scalar]] = {
    "HistGradientBoosting": {"max_iter": 15, "min_samples_leaf": 5},
    "RandomForest": {"n_estimators": 10},
    "ExtraTrees": {"n_estimators": 10},
}
TRAINED, ASKED = make_rows(200, seed=1), make_rows(60, seed=2)
STRANGE = ASKED.head(4).assign(
    wind=[None, 1e6, -1e6, None], city=["Atlantis", None, "", "<missing>"], season=[99, -1, 0, 4]
)
ROWS = pd.concat([ASKED, STRANGE], ignore_index=True)


class Exported:
    """A pipeline, fitted to `target` of the training rows, and its export."""

    def __init__(
        self,
        estimator: str,
        target: pd.Series,
        *,
        fitted_on: slice = slice(None),
        features: dict[str, Any] | None = None,
        **parameters: Scalar,
    ) -> None:
        is_regressor = estimator in REGRESSORS
        changes: dict[str, Any] = {"features": features} if features else {}
        spec = make_spec("regression" if is_regressor else "multiclass", **changes)
        self.schema: RowSchema = derive_schema(TRAINED.assign(**{spec.target: target}), spec)
        small = next((values for name, values in SMALL.items() if name in estimator), {})
        self.pipeline = build_pipeline(
            Configuration(estimator=estimator, parameters={**small, **parameters}), self.schema, seed=0
        )
        self.pipeline.fit(conform(TRAINED, self.schema)[fitted_on], target.to_numpy()[fitted_on])
        self.model = OnnxModel(export_onnx(self.pipeline, self.schema), self.schema)

    def compare(self, rows: pd.DataFrame = ROWS) -> None:
        """Both answer alike."""
        answers = self.model.predict(batch_of(rows, self.schema))
        report = compare_answers(predict(self.pipeline, rows, self.schema), answers)
        assert report.passed, report.reason


LEVELS = pd.qcut(TRAINED["cnt"], 3, labels=False)
TARGETS = {
    "two texts": TRAINED["busy"],
    "two whole numbers": (LEVELS > 1).astype(int),
    "two booleans": LEVELS > 1,
    "three texts": LEVELS.map({0: "low", 1: "mid", 2: "high"}),
    "three whole numbers": LEVELS + 5,
}


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_every_regressor_answers_alike_exported(estimator: str) -> None:
    """Also rows with nulls, with categories never seen, and far from all that was."""
    Exported(estimator, TRAINED["cnt"].clip(lower=0)).compare(ASKED if "Poisson" in estimator else ROWS)


@pytest.mark.parametrize("loss", ["poisson", "gamma", "absolute_error"])
def test_boosting_answers_alike_with_every_loss(loss: str) -> None:
    """skl2onnx forgets the link of some; the export does not."""
    Exported("sklearn.ensemble.HistGradientBoostingRegressor", TRAINED["cnt"].clip(lower=1), loss=loss).compare()


@pytest.mark.parametrize("estimator", CLASSIFIERS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_classifier_answers_alike_exported(estimator: str, target: str) -> None:
    """Texts, whole numbers and booleans, two and three of them."""
    Exported(estimator, TARGETS[target]).compare()


def test_classes_come_back_as_they_are_in_the_schema() -> None:
    """True is no 1, and 5 no text."""
    for name, kind in (("two booleans", bool), ("three whole numbers", int), ("two texts", str)):
        made = Exported("sklearn.linear_model.LogisticRegression", TARGETS[name])
        answers = made.model.predict(batch_of(ASKED, made.schema))
        assert {type(value) for value in answers.values.tolist()} == {kind}
        assert answers.classes == made.schema.classes


@pytest.mark.parametrize("estimator", CLASSIFIERS)
def test_a_class_that_the_fit_never_saw_has_probability_zero_in_its_place(estimator: str) -> None:
    """It appears in the validation rows only; the order of classes is the schema's."""
    target = pd.Series(np.where(TRAINED.index < 40, "a", np.where(LEVELS > 1, "c", "b")))
    made = Exported(estimator, target, fitted_on=slice(40, None))
    assert made.schema.classes == ("a", "b", "c")
    probabilities = made.model.predict(batch_of(ROWS, made.schema)).probabilities
    assert probabilities is not None
    assert not probabilities[:, 0].any()
    made.compare()


@pytest.mark.parametrize(
    "features",
    [
        pytest.param({"numeric": ["temp", "wind"]}, id="numbers only"),
        pytest.param({"categorical": ["city", "season"]}, id="categories only"),
        pytest.param({"numeric": ["wind"], "categorical": ["holiday"]}, id="one of each"),
    ],
)
@pytest.mark.parametrize("estimator", ["sklearn.linear_model.Ridge", REGRESSORS[0], CLASSIFIERS[1]])
def test_one_kind_of_feature_is_enough(estimator: str, features: dict[str, Any]) -> None:
    """The export has no input for what the schema does not have."""
    target = TRAINED["cnt"] if estimator in REGRESSORS else TRAINED["busy"]
    Exported(estimator, target, features=features).compare()


def test_a_feature_that_was_always_absent_is_no_obstacle() -> None:
    """The imputer keeps it."""
    rows = TRAINED.assign(wind=np.nan)
    schema = derive_schema(rows, make_spec())
    pipeline = build_pipeline(Configuration(estimator="sklearn.linear_model.Ridge"), schema, seed=0)
    pipeline.fit(conform(rows, schema), rows["cnt"].to_numpy())
    model = OnnxModel(export_onnx(pipeline, schema), schema)
    asked = ASKED.assign(wind=np.nan)
    report = compare_answers(predict(pipeline, asked, schema), model.predict(batch_of(asked, schema)))
    assert report.passed, report.reason


def test_a_row_is_answered_alike_alone_and_in_a_batch_and_no_rows_are_no_answers() -> None:
    """The size of a request changes nothing."""
    made = Exported(REGRESSORS[0], TRAINED["cnt"])
    batch = batch_of(ROWS, made.schema)
    together = made.model.predict(batch).values
    alone = [
        made.model.predict(Batch(batch.numeric[at : at + 1], batch.categorical[at : at + 1])).values[0]
        for at in range(len(batch))
    ]
    assert together.tolist() == alone
    assert len(made.model.predict(Batch(batch.numeric[:0], batch.categorical[:0])).values) == 0


def test_exporting_leaves_the_pipeline_as_it_was() -> None:
    """It is registered and judged after it was exported."""
    made = Exported(REGRESSORS[0], TRAINED["cnt"])
    before = predict(made.pipeline, ROWS, made.schema).values
    export_onnx(made.pipeline, made.schema)
    assert predict(made.pipeline, ROWS, made.schema).values.tolist() == before.tolist()


def test_an_exported_model_is_read_from_bytes_or_a_file(tmp_path: Any) -> None:
    """The first when it is judged, the second when it is served."""
    made = Exported("sklearn.linear_model.Ridge", TRAINED["cnt"])
    path = tmp_path / "model.onnx"
    path.write_bytes(export_onnx(made.pipeline, made.schema))
    batch = batch_of(ASKED, made.schema)
    assert OnnxModel(path, made.schema).predict(batch).values.tolist() == made.model.predict(batch).values.tolist()


class Odd(RegressorMixin, BaseEstimator):
    """An estimator that nobody wrote a converter for."""

    def fit(self, *_: Any) -> Odd:
        """It learns nothing."""
        self.is_fitted_ = True
        return self


def test_an_estimator_without_a_converter_is_refused_with_its_name_and_the_reason() -> None:
    """The fitted pipeline serves then, and GET /model says why."""
    schema = derive_schema(TRAINED, make_spec())
    made = build_pipeline(Configuration(estimator="sklearn.linear_model.Ridge"), schema, seed=0)
    pipeline = Pipeline([*made.steps[:-1], ("model", Odd())]).fit(conform(TRAINED, schema), TRAINED["cnt"])
    with pytest.raises(
        ConversionFailed, match=r"^no ONNX for Odd: MissingShapeCalculator: Unable to find .*Odd"
    ) as caught:
        export_onnx(pipeline, schema)
    assert "\n" not in str(caught.value)


def test_a_converter_that_fails_is_a_refusal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters raise whatever they meet, with messages of many lines or none."""
    import skl2onnx

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError

    schema = derive_schema(TRAINED, make_spec())
    pipeline = build_pipeline(Configuration(estimator="sklearn.linear_model.Ridge"), schema, seed=0)
    pipeline.fit(conform(TRAINED, schema), TRAINED["cnt"])
    monkeypatch.setattr(skl2onnx, "to_onnx", fail)
    with pytest.raises(ConversionFailed, match=r"^no ONNX for Ridge: KeyError: no message$"):
        export_onnx(pipeline, schema)
