"""The search: which estimator, which parameters, how much history."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from everloop.domain.configuration import Configuration
from everloop.domain.errors import SearchFailed
from everloop.domain.frames import conform
from everloop.domain.metrics import row_losses, score
from everloop.domain.pipelines import build_pipeline, predict_conformed
from everloop.domain.schema import RowSchema, canonical_category
from everloop.domain.spec import Candidate, Choice, ModelSpec, Range, Scalar
from everloop.domain.spec_values import Frozen
from everloop.domain.splits import Split, within_history


class Trial(Frozen):
    """One configuration and what it scored on the validation rows; infinite if it could not be fitted, and why."""

    configuration: Configuration
    metric: float
    rows: int
    failure: str | None = None


class SearchResult(Frozen):
    """All trials, the best one first."""

    trials: tuple[Trial, ...]

    @property
    def best(self) -> Configuration:
        """The configuration with the lowest metric."""
        return self.trials[0].configuration


def search_configurations(
    spec: ModelSpec, split: Split, schema: RowSchema, *, on_trial: Callable[[Trial], None] = lambda _: None
) -> SearchResult:
    """The trials of `spec.search` on train against validation, by a tree-structured Parzen estimator (Bergstra 2011).

    Every candidate is tried at least once on every history. The same data and seed give the same result.

    Raises:
        SearchFailed: no configuration could be fitted.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials: list[Trial] = []

    def objective(trial: Any) -> float:
        tried = _try(_suggest(trial, spec), spec, split, schema)
        trials.append(tried)
        on_trial(tried)
        return tried.metric

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=spec.search.seed))
    for position, history in product(range(len(spec.search.candidates)), spec.data.histories):
        study.enqueue_trial({"candidate": position, "history": history})
    study.optimize(objective, n_trials=spec.search.trials)
    ranked = sorted(trials, key=lambda trial: trial.metric)
    if ranked[0].failure:
        raise SearchFailed(f"none of {len(ranked)} configurations could be fitted; the first: {ranked[0].failure}")
    return SearchResult(trials=tuple(ranked))


def fit_configuration(configuration: Configuration, rows: pd.DataFrame, spec: ModelSpec, schema: RowSchema) -> Any:
    """The configuration's pipeline, fitted on all of `rows`; it predicts on one thread, whatever it was fitted on."""
    pipeline = build_pipeline(configuration, schema, seed=spec.search.seed)
    pipeline.fit(conform(rows, schema), _target(rows[spec.target], schema))
    if "model__n_jobs" in pipeline.get_params():
        pipeline.set_params(model__n_jobs=None)
    return pipeline


def _target(column: pd.Series, schema: RowSchema) -> np.ndarray:
    """The target as numbers, or as the schema's classes."""
    if not schema.classes:
        return column.to_numpy(dtype=float)
    classes = {canonical_category(name): name for name in schema.classes}
    return np.array([classes[canonical_category(value)] for value in column])


def _try(configuration: Configuration, spec: ModelSpec, split: Split, schema: RowSchema) -> Trial:
    metric, train = spec.gates.metric, within_history(split.train, configuration.history, spec.time)
    try:
        pipeline = fit_configuration(configuration, train, spec, schema)
        predicted = predict_conformed(pipeline, conform(split.validation, schema), classes=schema.classes)
        found = score(metric, row_losses(metric, split.validation[spec.target].to_numpy(), predicted))
        failure = None if math.isfinite(found) else f"its {metric} on the validation rows is {found}"
    except ValueError as exc:  # scikit-learn's word for data or parameters that do not fit together
        failure = f"{configuration.title}: {exc}"
    return Trial(configuration=configuration, metric=math.inf if failure else found, rows=len(train), failure=failure)


def _suggest(trial: Any, spec: ModelSpec) -> Configuration:
    position = trial.suggest_categorical("candidate", list(range(len(spec.search.candidates))))
    candidate: Candidate = spec.search.candidates[position]
    parameters = {name: _draw(trial, f"{position}.{name}", choice) for name, choice in candidate.parameters.items()}
    history = trial.suggest_categorical("history", list(spec.data.histories))
    return Configuration(estimator=candidate.estimator, parameters=parameters, history=history)


def _draw(trial: Any, name: str, choice: Choice) -> Scalar:
    if isinstance(choice, Range) and choice.is_whole:
        return int(trial.suggest_int(name, int(choice.low), int(choice.high), log=choice.log))
    if isinstance(choice, Range):
        return float(trial.suggest_float(name, choice.low, choice.high, log=choice.log))
    if isinstance(choice, tuple):
        drawn: Scalar = trial.suggest_categorical(name, list(choice))
        return drawn
    return choice
