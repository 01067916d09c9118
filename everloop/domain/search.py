"""The search: which estimator, which parameters, how much history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from everloop.domain.metrics import row_losses, score
from everloop.domain.pipelines import Configuration, build_pipeline, predict_conformed
from everloop.domain.schema import RowSchema, conform
from everloop.domain.spec import Candidate, Choice, FloatRange, Frozen, ModelSpec, Scalar
from everloop.domain.splits import Split, within_history


class Trial(Frozen):
    """One configuration and what it scored on the validation rows."""

    configuration: Configuration
    metric: float
    rows: int


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

    Every candidate is tried at least once. The same data and seed give the same result.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials: list[Trial] = []

    def objective(trial: Any) -> float:
        configuration = _suggest(trial, spec)
        train = within_history(split.train, configuration.history, spec.time)
        pipeline = fit_configuration(configuration, train, spec, schema)
        predicted = predict_conformed(pipeline, conform(split.validation, schema))
        found = score(
            spec.gates.metric, row_losses(spec.gates.metric, split.validation[spec.target].to_numpy(), predicted)
        )
        trials.append(Trial(configuration=configuration, metric=found, rows=len(train)))
        on_trial(trials[-1])
        return found

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=spec.search.seed))
    for position in range(len(spec.search.candidates)):
        study.enqueue_trial({"candidate": position})
    study.optimize(objective, n_trials=spec.search.trials)
    return SearchResult(trials=tuple(sorted(trials, key=lambda trial: trial.metric)))


def fit_configuration(configuration: Configuration, rows: pd.DataFrame, spec: ModelSpec, schema: RowSchema) -> Any:
    """The configuration's pipeline, fitted on all of `rows`; it predicts on one thread, whatever it was fitted on."""
    pipeline = build_pipeline(configuration, schema, seed=spec.search.seed)
    target = rows[spec.target]
    pipeline.fit(
        conform(rows, schema), target.to_numpy(dtype=float) if spec.kind == "regression" else target.to_numpy()
    )
    if "model__n_jobs" in pipeline.get_params():
        pipeline.set_params(model__n_jobs=None)
    return pipeline


def _suggest(trial: Any, spec: ModelSpec) -> Configuration:
    position = trial.suggest_categorical("candidate", list(range(len(spec.search.candidates))))
    candidate: Candidate = spec.search.candidates[position]
    parameters = {name: _draw(trial, f"{position}.{name}", choice) for name, choice in candidate.parameters.items()}
    histories = spec.data.histories
    history = histories[0] if len(histories) == 1 else trial.suggest_categorical("history", list(histories))
    return Configuration(estimator=candidate.estimator, parameters=parameters, history=history)


def _draw(trial: Any, name: str, choice: Choice) -> Scalar:
    if isinstance(choice, FloatRange):
        return float(trial.suggest_float(name, choice.low, choice.high, log=choice.log))
    if isinstance(choice, tuple):
        drawn: Scalar = trial.suggest_categorical(name, list(choice))
        return drawn
    return choice
