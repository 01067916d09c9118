"""Illustrate: the plots of a training run. They take seconds and nobody waits for them."""

from __future__ import annotations

import logging

from everloop.adapters.plots import training_plots
from everloop.adapters.registry import Version
from everloop.adapters.tracking import log_figures
from everloop.domain.frames import conform
from everloop.domain.spec import ModelSpec
from tasks.evaluate import Evaluation
from tasks.fit import Challenger
from tasks.prepare import Prepared
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.illustrate")


@step
def illustrate(
    spec: ModelSpec, data: Prepared, challenger: Challenger, evaluation: Evaluation, version: Version
) -> None:
    """Afterwards the MLflow run of `version` shows what the challenger did on the holdout."""
    holdout = data.split.holdout
    time = holdout[spec.time] if spec.time else None
    features, truth = conform(holdout, data.schema), holdout[spec.target].to_numpy()
    figures = training_plots(challenger.pipeline, features, truth, evaluation.predicted, time=time)
    log_figures(registry(), version, figures)
    log.info("drew the plots of %s", version.label)
