"""From a configuration to a scikit-learn pipeline, and from a fitted pipeline to predictions."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from everloop.domain.configuration import Configuration
from everloop.domain.errors import SpecError
from everloop.domain.frames import conform
from everloop.domain.metrics import Predictions
from everloop.domain.schema import RowSchema, canonical_category
from everloop.domain.spec import ModelSpec, Scalar, values_of

# What skops may build from a model file beyond its own defaults. Reviewed: these three hold numbers only.
TRUSTED_TYPES = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def check_parameters(spec: ModelSpec) -> None:
    """Every parameter that the candidates name is one of their estimator's, and every value is allowed.

    Raises:
        SpecError: a parameter or a value is unknown to the estimator.
    """
    where = f"models/{spec.name}/model.toml: search.candidates"
    for candidate in spec.search.candidates:
        cls = _estimator_class(candidate.estimator)
        allowed = inspect.signature(cls).parameters
        for name, choice in candidate.parameters.items():
            if name not in allowed:
                raise SpecError(
                    f"{where}: {name!r} is not a parameter of {candidate.estimator}; allowed: {', '.join(allowed)}"
                )
            for value in values_of(choice):
                try:
                    cls(**{name: value})._validate_params()
                except ValueError as exc:
                    raise SpecError(f"{where}: {candidate.estimator}: {exc}") from exc


def build_pipeline(configuration: Configuration, schema: RowSchema, *, seed: int) -> Any:
    """An unfitted pipeline that takes `conform`ed rows: impute and scale numbers where needed, one-hot categories."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    cls = _estimator_class(configuration.estimator)
    parameters = dict(configuration.parameters)
    if "random_state" in inspect.signature(cls).parameters:
        parameters.setdefault("random_state", seed)
    is_linear = ".linear_model." in configuration.estimator
    is_boosting = "HistGradientBoosting" in configuration.estimator
    steps: list[tuple[str, Any]] = (
        [] if is_boosting else [("impute", SimpleImputer(strategy="median", keep_empty_features=True))]
    )
    if is_linear:
        steps.append(("scale", StandardScaler()))
    numeric = [feature.name for feature in schema.features if feature.role == "numeric"]
    categorical = [feature.name for feature in schema.features if feature.role == "categorical"]
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    prepare = ColumnTransformer(
        [("numeric", Pipeline(steps) if steps else "passthrough", numeric), ("categorical", encode, categorical)],
        verbose_feature_names_out=False,
    )
    return Pipeline([("prepare", prepare), ("model", cls(**parameters))])


def predict(pipeline: Any, frame: pd.DataFrame, schema: RowSchema) -> Predictions:
    """What the fitted `pipeline` says about the rows of `frame` (raw columns)."""
    return predict_conformed(pipeline, conform(frame, schema), classes=schema.classes)


def predict_conformed(pipeline: Any, features: pd.DataFrame, *, classes: tuple[Scalar, ...]) -> Predictions:
    """What the fitted `pipeline` says about rows that are already in canonical form.

    Probabilities are in the order of `classes`; one that the pipeline has never seen has probability 0.
    """
    if not hasattr(pipeline, "predict_proba"):
        return Predictions(np.asarray(pipeline.predict(features), dtype=float))
    found = np.asarray(pipeline.predict_proba(features))
    known = [canonical_category(name) for name in pipeline.classes_]
    probabilities = np.zeros((len(features), len(classes)))
    for position, name in enumerate(classes):
        if (text := canonical_category(name)) in known:
            probabilities[:, position] = found[:, known.index(text)]
    values = np.array(classes, dtype=object)[probabilities.argmax(axis=1)]
    return Predictions(values, probabilities, classes)


def _estimator_class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
